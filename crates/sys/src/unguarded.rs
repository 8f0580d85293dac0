//! A switch for the tests of the guards: with the feature `unguarded` one guard is taken away, the one that the environment names.
//! A guard is proved by an attack that fails with it and succeeds without. Without the feature there is no switch at all.

/// The environment variable that names the guard.
pub const VARIABLE: &str = "BERTH_WITHOUT_GUARD";

/// Whether to do without this guard.
#[cfg(feature = "unguarded")]
pub fn without(guard: &str) -> bool {
    std::env::var_os(VARIABLE).is_some_and(|named| named == guard)
}

/// Whether to do without this guard: never.
#[cfg(not(feature = "unguarded"))]
pub const fn without(_guard: &str) -> bool {
    false
}
