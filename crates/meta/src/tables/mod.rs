//! What the database holds, by kind. Only the database's thread sees `Tables`.

pub mod blobs;
pub mod containers;
pub mod gc;
pub mod images;
mod kept;
pub mod labels;
pub mod leases;
pub mod namespaces;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Params};

use crate::error::Error;

/// A typed value as its owner gave it, kept to the byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Any {
    pub type_url: String,
    pub value: Vec<u8>,
}

impl Any {
    fn columns(any: Option<&Any>) -> (Value, Value) {
        match any {
            Some(any) => (any.type_url.clone().into(), any.value.clone().into()),
            None => (Value::Null, Value::Null),
        }
    }

    fn of(type_url: Option<String>, value: Option<Vec<u8>>) -> Option<Any> {
        type_url.map(|type_url| Any {
            type_url,
            value: value.unwrap_or_default(),
        })
    }
}

/// The tables inside a transaction.
pub struct Tables<'a>(pub(crate) &'a Connection);

impl Tables<'_> {
    /// The same for the life of the database.
    pub fn uuid(&self) -> Result<String, Error> {
        Ok(self
            .one("SELECT value FROM about WHERE key = 'uuid'", [], |row| row.get(0))?
            .unwrap_or_default())
    }

    /// An id that nobody else has.
    pub fn random(&self) -> Result<String, Error> {
        Ok(self
            .one("SELECT lower(hex(randomblob(12)))", [], |row| row.get(0))?
            .unwrap_or_default())
    }

    fn execute(&self, sql: &str, params: impl Params) -> Result<usize, Error> {
        Ok(self.0.prepare_cached(sql)?.execute(params)?)
    }

    fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        row: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        Ok(self.0.prepare_cached(sql)?.query_row(params, row).optional()?)
    }

    fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = self.0.prepare_cached(sql)?;
        let rows = statement.query_map(params, row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn has(&self, sql: &str, params: impl Params) -> Result<bool, Error> {
        Ok(self.0.prepare_cached(sql)?.exists(params)?)
    }
}
