//! The start queue.
