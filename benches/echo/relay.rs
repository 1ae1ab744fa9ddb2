//! A one-way TCP relay, three times: what a client sends goes to the destination. Our drivers
//! have no streams yet; they join here when they have.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, bail};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Contender, bare};

pub(super) const BUFFER_BYTES: usize = 256 << 10;

pub(super) const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Serves; `ready` gets the port. Everything goes to `destination`.
///
/// # Errors
/// If the contender cannot be set up, or cannot accept any more.
pub fn serve(contender: Contender, destination: SocketAddr, ready: fn(u16)) -> anyhow::Result<()> {
    match contender {
        Contender::Ring | Contender::Epoll => bail!("Our drivers have no streams yet"),
        Contender::Bare => bare::serve(destination, ready),
        Contender::Monoio => monoio(destination, ready),
        Contender::TokioUring => tokio_uring(destination, ready),
        Contender::Tokio => tokio(destination, ready),
    }
}

fn monoio(destination: SocketAddr, ready: fn(u16)) -> anyhow::Result<()> {
    let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
    let mut runtime = builder.build().context("monoio finds no io_uring")?;
    runtime.block_on(async {
        let listener = monoio::net::TcpListener::bind(ANY_PORT)?;
        ready(listener.local_addr()?.port());
        loop {
            let (mut from, _) = listener.accept().await?;
            monoio::spawn(async move {
                let mut to = monoio::net::TcpStream::connect(destination).await?;
                let mut buf = Vec::with_capacity(BUFFER_BYTES);
                loop {
                    let (read, filled) = from.read(buf).await;
                    if read? == 0 {
                        return std::io::Result::Ok(());
                    }
                    let (written, back) = to.write_all(filled).await;
                    written?;
                    buf = back;
                    buf.clear();
                }
            });
        }
    })
}

fn tokio_uring(destination: SocketAddr, ready: fn(u16)) -> anyhow::Result<()> {
    tokio_uring::start(async {
        let listener = tokio_uring::net::TcpListener::bind(SocketAddr::from(ANY_PORT))?;
        ready(listener.local_addr()?.port());
        loop {
            let (from, _) = listener.accept().await?;
            tokio_uring::spawn(async move {
                let to = tokio_uring::net::TcpStream::connect(destination).await?;
                let mut buf = Vec::with_capacity(BUFFER_BYTES);
                loop {
                    let (read, filled) = from.read(buf).await;
                    if read? == 0 {
                        return std::io::Result::Ok(());
                    }
                    let (written, back) = to.write_all(filled).await;
                    written?;
                    buf = back;
                    buf.clear();
                }
            });
        }
    })
}

fn tokio(destination: SocketAddr, ready: fn(u16)) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(ANY_PORT).await?;
        ready(listener.local_addr()?.port());
        loop {
            let (mut from, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut to = tokio::net::TcpStream::connect(destination).await?;
                let mut buf = vec![0; BUFFER_BYTES];
                loop {
                    let len = from.read(&mut buf).await?;
                    if len == 0 {
                        return std::io::Result::Ok(());
                    }
                    to.write_all(&buf[..len]).await?;
                }
            });
        }
    })
}
