//! Names. Namespaces, container ids and exec ids follow containerd's rule: 1 to 76 characters, letters and digits joined by
//! single '.', '_' or '-'. So a name is safe as a file name, and ':' and '~' stay free for paths of our own.
//!
//! An `Incarnation` tells a container from earlier and later ones of the same id; what concerns an old one is dropped by it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, excerpt};

const MAX: usize = 76;

fn check(what: &'static str, value: &str) -> Result<(), Error> {
    if value.is_empty() {
        return Err(Error::Empty { what });
    }
    if value.len() > MAX {
        return Err(Error::TooLong {
            what,
            value: excerpt(value),
            length: value.chars().count(),
            max: MAX,
        });
    }
    // A separator must have a letter or digit on both sides.
    let mut joined = false;
    for byte in value.bytes() {
        joined = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => true,
            b'.' | b'_' | b'-' if joined => false,
            _ => {
                return Err(Error::BadCharacters {
                    what,
                    value: excerpt(value),
                });
            }
        };
    }
    if joined {
        Ok(())
    } else {
        Err(Error::BadCharacters {
            what,
            value: excerpt(value),
        })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(value: &str) -> Result<Self, Error> {
                check($what, value)?;
                Ok(Self(value.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(value: &str) -> Result<Self, Error> {
                Self::new(value)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// Separates the containers of different clients; the same id may be used in each.
    Namespace,
    "namespace"
);
name!(
    /// A container's id, unique in its namespace.
    ContainerId,
    "container id"
);
name!(
    /// The id of one more process in a container, unique in the container.
    ExecId,
    "exec id"
);

impl Namespace {
    pub const DEFAULT: &'static str = "default";

    /// An empty name means the default namespace.
    pub fn or_default(value: &str) -> Result<Self, Error> {
        Self::new(if value.is_empty() { Self::DEFAULT } else { value })
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

/// Names a container among all of a daemon's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerKey {
    pub namespace: Namespace,
    pub id: ContainerId,
}

impl ContainerKey {
    pub fn new(namespace: Namespace, id: ContainerId) -> Self {
        Self { namespace, id }
    }

    /// From names as they came: an empty namespace is the default one.
    pub fn parse(namespace: &str, id: &str) -> Result<Self, Error> {
        Ok(Self {
            namespace: Namespace::or_default(namespace)?,
            id: ContainerId::new(id)?,
        })
    }
}

/// `NAMESPACE/ID`, as logs and process titles show it.
impl fmt::Display for ContainerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.id)
    }
}

/// 128 random bits that name one life of a container; 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(u128);

impl Incarnation {
    /// From random bytes; where they come from is the caller's business.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Incarnation {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self, Error> {
        let bad = || Error::BadIncarnation { value: excerpt(value) };
        if value.len() != 32 || !value.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(bad());
        }
        u128::from_str_radix(value, 16).map(Self).map_err(|_| bad())
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn containerds_rule() {
        for good in ["a", "0", "a.b", "a_b-c.d", "A-1", &"x".repeat(76)] {
            assert!(ContainerId::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a-_b",
            "a/b",
            "..",
            "a\0",
            "a\n",
            "ä",
            "a b",
            "a:b",
            "a~b",
            &"x".repeat(77),
            &"x".repeat(1 << 20),
        ] {
            let error = ContainerId::new(bad).unwrap_err();
            assert!(
                error.to_string().len() < 200 && !error.to_string().contains('\n'),
                "{error}"
            );
        }
    }

    #[test]
    fn the_namespace_has_a_default() {
        assert_eq!(Namespace::or_default("").unwrap(), Namespace::default());
        assert_eq!(ContainerKey::parse("", "a").unwrap().to_string(), "default/a");
        assert!(ContainerKey::parse("*", "a").is_err());
    }

    proptest! {
        #[test]
        fn a_good_id_is_its_own_text(s in "[a-zA-Z0-9]{1,8}([._-][a-zA-Z0-9]{1,8}){0,5}") {
            let id: ContainerId = s.parse().unwrap();
            prop_assert_eq!(id.as_str(), s);
        }

        #[test]
        fn no_id_leaves_its_folder(s in ".{0,80}") {
            if let Ok(id) = ContainerId::new(&s) {
                prop_assert!(!id.as_str().contains(['/', ':', '~', '\0', '\n']) && !id.as_str().starts_with('.'));
            }
        }

        #[test]
        fn incarnations_round_trip(bytes: [u8; 16]) {
            let i = Incarnation::from_bytes(bytes);
            prop_assert_eq!(i.to_string().parse::<Incarnation>().unwrap(), i);
        }
    }
}
