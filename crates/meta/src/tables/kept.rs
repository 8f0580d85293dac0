//! Containers that are to be there again after a reboot, as their supervisor wrote them down.

use berth_core::ContainerKey;

use super::Tables;
use crate::error::Error;

impl Tables<'_> {
    /// `None` = forget it.
    pub fn keep(&self, key: &ContainerKey, record: Option<&[u8]>) -> Result<(), Error> {
        let (namespace, id) = (key.namespace.as_str(), key.id.as_str());
        match record {
            Some(record) => self.execute(
                "INSERT OR REPLACE INTO kept VALUES (?1, ?2, ?3)",
                rusqlite::params![namespace, id, record],
            )?,
            None => self.execute("DELETE FROM kept WHERE namespace = ?1 AND id = ?2", [namespace, id])?,
        };
        Ok(())
    }

    pub fn kept(&self) -> Result<Vec<(ContainerKey, Vec<u8>)>, Error> {
        let rows = self.all(
            "SELECT namespace, id, record FROM kept ORDER BY namespace, id",
            [],
            |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, Vec<u8>>(2)?,
                ))
            },
        )?;
        let keyed = |(namespace, id, record): (String, String, Vec<u8>)| {
            Some((ContainerKey::parse(&namespace, &id).ok()?, record))
        };
        Ok(rows.into_iter().filter_map(keyed).collect())
    }
}
