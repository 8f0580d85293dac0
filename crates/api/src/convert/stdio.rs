//! Where input and output go, both ways.

use std::path::PathBuf;

use berth_core::{FifoSpec, LogFormat, LogPolicy, LogSpec, Stdio, StdioTo, TerminalSize};
use berth_supervisor::Error;
use berth_wire::v1;

use super::Subject;

impl Subject {
    /// `default` is what stands for an unset stdio.
    pub fn stdio(&self, stdio: Option<v1::Stdio>, default: StdioTo) -> Result<Stdio, Error> {
        let Some(stdio) = stdio else {
            return Ok(Stdio {
                to: default,
                terminal: false,
                size: TerminalSize::default(),
            });
        };
        let to = match stdio.to {
            None => default,
            Some(v1::stdio::To::Null(v1::StdioNull {})) => StdioTo::Null,
            Some(v1::stdio::To::Fifo(fifo)) => StdioTo::Fifo(FifoSpec {
                stdin: self.fifo("stdio.fifo.stdin", &fifo.stdin)?,
                stdout: self.fifo("stdio.fifo.stdout", &fifo.stdout)?,
                stderr: self.fifo("stdio.fifo.stderr", &fifo.stderr)?,
                owner: None,
            }),
            Some(v1::stdio::To::Log(log)) => StdioTo::Log(self.log(&log)?),
            Some(v1::stdio::To::File(file)) => {
                return Err(self.refuse(
                    "stdio.file",
                    file.path,
                    "null, fifo or log: a file only stands in answers",
                ));
            }
            Some(v1::stdio::To::Logger(logger)) => {
                let allowed = "null, fifo or log: a logger only stands in answers";
                return Err(self.refuse("stdio.logger", logger.program, allowed));
            }
        };
        let size = self.size("stdio.width", stdio.width, "stdio.height", stdio.height, true)?;
        Ok(Stdio {
            to,
            terminal: stdio.terminal,
            size,
        })
    }

    fn fifo(&self, field: &str, path: &str) -> Result<Option<PathBuf>, Error> {
        if path.is_empty() {
            Ok(None)
        } else {
            self.absolute_path(field, path).map(Some)
        }
    }

    fn log(&self, log: &v1::StdioLog) -> Result<LogSpec, Error> {
        let format = match v1::LogFormat::try_from(log.format) {
            Ok(v1::LogFormat::Unspecified) => None,
            Ok(v1::LogFormat::Cri) => Some(LogFormat::Cri),
            Ok(v1::LogFormat::Json) => Some(LogFormat::Json),
            Ok(v1::LogFormat::Plain) => Some(LogFormat::Plain),
            Err(_) => return Err(self.refuse("stdio.log.format", log.format, "a LogFormat, 0 to 3")),
        };
        let policy = match v1::LogPolicy::try_from(log.policy) {
            Ok(v1::LogPolicy::Unspecified) => None,
            Ok(v1::LogPolicy::Block) => Some(LogPolicy::Block),
            Ok(v1::LogPolicy::Drop) => Some(LogPolicy::Drop),
            Err(_) => return Err(self.refuse("stdio.log.policy", log.policy, "a LogPolicy, 0 to 2")),
        };
        if log.max_size != 0 && log.max_size < 4096 {
            return Err(self.refuse(
                "stdio.log.max_size",
                log.max_size,
                "4096 or more bytes, 0 = the default",
            ));
        }
        if log.max_files > 1000 {
            return Err(self.refuse("stdio.log.max_files", log.max_files, "1 to 1000, 0 = the default"));
        }
        Ok(LogSpec {
            format,
            policy,
            max_size: (log.max_size != 0).then_some(log.max_size),
            max_files: (log.max_files != 0).then_some(log.max_files),
            stdin: log.stdin,
            discard: log.discard,
        })
    }

    /// `optional`: both 0 mean the default.
    pub fn size(
        &self,
        width_field: &str,
        width: u32,
        height_field: &str,
        height: u32,
        optional: bool,
    ) -> Result<TerminalSize, Error> {
        let default = TerminalSize::default();
        let side = |field: &str, value: u32, default: u16| match u16::try_from(value) {
            Ok(0) if optional => Ok(default),
            Ok(value) if value > 0 => Ok(value),
            _ => Err(self.refuse(field, value, "1 to 65535")),
        };
        Ok(TerminalSize {
            width: side(width_field, width, default.width)?,
            height: side(height_field, height, default.height)?,
        })
    }
}

pub fn stdio(stdio: Stdio) -> v1::Stdio {
    let text = |path: Option<PathBuf>| path.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    let to = match stdio.to {
        StdioTo::Null => v1::stdio::To::Null(v1::StdioNull {}),
        StdioTo::Fifo(fifo) => v1::stdio::To::Fifo(v1::StdioFifo {
            stdin: text(fifo.stdin),
            stdout: text(fifo.stdout),
            stderr: text(fifo.stderr),
        }),
        StdioTo::File(path) => v1::stdio::To::File(v1::StdioFile {
            path: path.to_string_lossy().into_owned(),
        }),
        StdioTo::Logger(logger) => v1::stdio::To::Logger(v1::StdioLogger {
            program: logger.program.to_string_lossy().into_owned(),
            args: logger.args,
        }),
        StdioTo::Log(log) => v1::stdio::To::Log(v1::StdioLog {
            format: match log.format {
                None => v1::LogFormat::Unspecified,
                Some(LogFormat::Cri) => v1::LogFormat::Cri,
                Some(LogFormat::Json) => v1::LogFormat::Json,
                Some(LogFormat::Plain) => v1::LogFormat::Plain,
            }
            .into(),
            policy: match log.policy {
                None => v1::LogPolicy::Unspecified,
                Some(LogPolicy::Block) => v1::LogPolicy::Block,
                Some(LogPolicy::Drop) => v1::LogPolicy::Drop,
            }
            .into(),
            max_size: log.max_size.unwrap_or(0),
            max_files: log.max_files.unwrap_or(0),
            stdin: log.stdin,
            discard: log.discard,
        }),
    };
    v1::Stdio {
        to: Some(to),
        terminal: stdio.terminal,
        width: stdio.size.width.into(),
        height: stdio.size.height.into(),
    }
}
