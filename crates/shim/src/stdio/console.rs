//! The socket that a runtime sends a terminal's master to (its `--console-socket`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use berth_sys::{file, socket};

use super::io as failed;
use crate::error::Error;
use crate::watch::{Part, Poll, Token, Want, Watched};

/// Removes its socket when it is dropped.
#[derive(Debug)]
pub struct Console {
    name: String,
    folder: Rc<OwnedFd>,
    poll: Poll,
    token: Token,
    listener: Watched,
    runtime: Option<Watched>,
}

impl Console {
    pub fn listen(folder: &Rc<OwnedFd>, owner: u32, poll: &Poll) -> Result<Console, Error> {
        let name = format!("console-{owner}.sock");
        let token = Token::Io(owner, Part::Console);
        let listener = socket::listen_at(folder.as_fd(), &name, 0o600).and_then(|fd| poll.watch(fd, token, Want::READ));
        let listener = listener.map_err(failed("console socket"))?;
        Ok(Console {
            name,
            folder: folder.clone(),
            poll: poll.clone(),
            token,
            listener,
            runtime: None,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The master, if it has come.
    pub fn take(&mut self) -> Result<Option<OwnedFd>, Error> {
        match self.try_take() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => {
                // Whatever it sent or did not send: it says no more.
                self.runtime = None;
                if other.is_err() {
                    // Without a descriptor for it, whoever waits would wake the loop for ever; whoever needs the terminal asks again.
                    let _ = self.listener.want(Want::NONE);
                }
                other.map_err(failed("console socket"))
            }
        }
    }

    fn try_take(&mut self) -> io::Result<Option<OwnedFd>> {
        if self.runtime.is_none() {
            let Some(runtime) = socket::accept(&self.listener)? else {
                return Ok(None);
            };
            self.runtime = Some(self.poll.watch(runtime, self.token, Want::READ)?);
        }
        let Some(runtime) = &self.runtime else { return Ok(None) };
        // The bytes are the terminal's name, which is of no use here.
        let mut received = socket::recv_fds(runtime, &mut [0; 256])?;
        match received.fds.pop() {
            Some(master) => {
                file::set_nonblocking(&master, true)?;
                Ok(Some(master))
            }
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the runtime sent no terminal",
            )),
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = file::unlink_at(self.folder.as_fd(), &self.name);
    }
}
