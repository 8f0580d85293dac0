//! A shim's end of its connections: frames in, requests to the machine; what the machine sends, out in order.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::{fmt, io};

use berth_core::ContainerKey;
use berth_record::Folder;
use berth_supervisor::{BoxFuture, Forked, ShimProcess, ShimStream, Shims};
use berth_wire::hello::{self, Hello};
use berth_wire::rpc;
use berth_wire::ttrpc::Decoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::machine::{Machine, lock};

pub struct Simulated(pub Arc<Mutex<Machine>>);

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated shims")
    }
}

impl Simulated {
    fn process(&self, shim: usize) -> ShimProcess {
        let (pid, ended) = lock(&self.0).shim_process(shim);
        let machine = self.0.clone();
        ShimProcess::simulated(pid, ended, move || lock(&machine).kill_shim(shim))
    }

    fn open(&self, shim: usize) -> Box<dyn ShimStream> {
        let (ours, theirs) = tokio::io::duplex(256 << 10);
        tokio::spawn(serve(self.0.clone(), shim, theirs));
        Box::new(ours)
    }
}

impl Shims for Simulated {
    fn fork<'a>(&'a self, folder: &'a Arc<Folder>, key: &'a ContainerKey) -> BoxFuture<'a, io::Result<Forked>> {
        Box::pin(async move {
            let shim = lock(&self.0).fork(folder.clone(), key.id.as_str());
            Ok(Forked {
                stream: self.open(shim),
                process: Arc::new(self.process(shim)),
            })
        })
    }

    fn connect<'a>(&'a self, folder: &'a Arc<Folder>) -> BoxFuture<'a, io::Result<Box<dyn ShimStream>>> {
        Box::pin(async move {
            let record = folder.container()?.ok_or(io::ErrorKind::NotFound)?;
            let shim = lock(&self.0).shim_of(&record.incarnation);
            Ok(self.open(shim.ok_or(io::ErrorKind::ConnectionRefused)?))
        })
    }

    fn found(&self, folder: &Folder, pid: u32, _pidfd: OwnedFd) -> io::Result<ShimProcess> {
        let record = folder.container()?.ok_or(io::ErrorKind::NotFound)?;
        if pid == std::process::id() {
            let shim = lock(&self.0).shim_of(&record.incarnation);
            return Ok(self.process(shim.ok_or(io::ErrorKind::NotFound)?));
        }
        let ended = lock(&self.0).init_process(&record.incarnation);
        let machine = self.0.clone();
        Ok(ShimProcess::simulated(
            pid,
            ended.ok_or(io::ErrorKind::NotFound)?,
            move || lock(&machine).kill_init(&record.incarnation),
        ))
    }
}

async fn serve(machine: Arc<Mutex<Machine>>, shim: usize, stream: DuplexStream) {
    let (out, mut frames) = mpsc::channel::<Vec<u8>>(4096);
    let conn = lock(&machine).connected(shim, out);
    let (mut from, mut to) = tokio::io::split(stream);
    let reading = async {
        let mut greeting = [0; hello::LEN];
        if from.read_exact(&mut greeting).await.is_err() {
            return;
        }
        let Ok(hello) = Hello::decode(&greeting) else { return };
        lock(&machine).send(shim, conn, hello.answer(0, 1).encode().to_vec());
        let (mut decoder, mut buffer) = (Decoder::new(), vec![0; 16 << 10]);
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            decoder.push(&buffer[..count]);
            while let Ok(Some(frame)) = decoder.pop() {
                let Ok((method, body)) = rpc::parse_request(frame.body) else {
                    return;
                };
                lock(&machine).request(shim, conn, frame.stream, method, body);
            }
        }
    };
    let writing = async {
        while let Some(frame) = frames.recv().await {
            if to.write_all(&frame).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = reading => {}
        () = writing => {}
    }
    lock(&machine).disconnected(shim, conn);
}
