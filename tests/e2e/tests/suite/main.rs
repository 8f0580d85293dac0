//! End-to-end tests, one module a theme. One binary: it links once and its tests share the machine's cores.
mod lifecycle;
