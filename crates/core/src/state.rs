//! The state table. (stub)
