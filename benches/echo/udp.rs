//! A UDP echo server, five times. Each listens on a free port of 127.0.0.1, tells it, and serves
//! until it is killed.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use anyhow::Context;
use ringway_alloc::Buf;
use ringway_ring::{
    Backend, DriverConfig, EpollDriver, Outside, Received, Train, UdpOptions, UdpSockets,
    UringDriver, Wait,
};

use super::Contender;

/// Receives in flight on the runtimes without multishot; more did not help them.
const TASKS: usize = 16;

const DATAGRAM_BYTES_MAX: usize = 2048;

const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Serves; `ready` gets the port.
///
/// # Errors
/// If the contender cannot be set up, or its loop breaks.
pub fn serve(contender: Contender, ready: fn(u16)) -> anyhow::Result<()> {
    match contender {
        Contender::Ring => own::<UringDriver>(ready),
        Contender::Epoll => own::<EpollDriver>(ready),
        Contender::Bare => anyhow::bail!("The bare ring is for streams"),
        Contender::Monoio => monoio(ready),
        Contender::TokioUring => tokio_uring(ready),
        Contender::Tokio => tokio(ready),
    }
}

fn own<B: Backend>(ready: fn(u16)) -> anyhow::Result<()> {
    let (mut driver, port) = driver::<B>()?;
    ready(port);
    let mut open: Option<Train> = None;
    loop {
        driver.turn(Wait::Forever)?;
        while let Some(received) = driver.next() {
            let Received::Outside(datagrams) = received else { continue };
            if let Some(train) = open.take_if(|train| !append(train, &datagrams)) {
                driver.send(train);
            }
            if open.is_none() {
                open = driver.reserve_train().map(|buf| start(buf, &datagrams));
            }
        }
        if let Some(train) = open.take() {
            driver.send(train);
        }
    }
}

/// A driver with one IPv4 socket, and the port of that.
pub(super) fn driver<B: Backend>() -> anyhow::Result<(B, u16)> {
    let mut driver = B::make(DriverConfig::new()?)?;
    let options =
        UdpOptions { ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None, ..UdpOptions::default() };
    let sockets = UdpSockets::bind(&options)?;
    let port = sockets.port();
    driver.set_sockets(Some(sockets))?;
    Ok((driver, port))
}

/// A train that sends back what came.
fn start(mut buf: Buf, datagrams: &Outside) -> Train {
    let bytes = &datagrams.buf[datagrams.start..datagrams.start + datagrams.len];
    buf[..bytes.len()].copy_from_slice(bytes);
    Train {
        buf,
        len: bytes.len(),
        segment_bytes: datagrams.stride,
        to: datagrams.from,
        from: datagrams.to,
        ecn: datagrams.ecn,
        dscp: 0,
    }
}

/// Puts more datagrams for the same destination into a train, as the gateway does; whether it
/// could.
fn append(train: &mut Train, datagrams: &Outside) -> bool {
    /// What every kernel that has UDP_SEGMENT accepts.
    const SEGMENTS_MAX: usize = 64;
    let bytes = &datagrams.buf[datagrams.start..datagrams.start + datagrams.len];
    let end = train.len + bytes.len();
    let joins = train.to == datagrams.from
        && train.segment_bytes == datagrams.stride
        && train.len.is_multiple_of(train.segment_bytes)
        && end <= SEGMENTS_MAX * train.segment_bytes;
    if joins {
        train.buf[train.len..end].copy_from_slice(bytes);
        train.len = end;
    }
    joins
}

fn monoio(ready: fn(u16)) -> anyhow::Result<()> {
    let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
    let mut runtime = builder.build().context("monoio finds no io_uring")?;
    runtime.block_on(async {
        let socket = Rc::new(monoio::net::udp::UdpSocket::bind(ANY_PORT)?);
        ready(socket.local_addr()?.port());
        let echo = |socket: Rc<monoio::net::udp::UdpSocket>| async move {
            let mut buf = Vec::with_capacity(DATAGRAM_BYTES_MAX);
            loop {
                let (received, filled) = socket.recv_from(buf).await;
                let Ok((_, from)) = received else { break };
                let (sent, back) = socket.send_to(filled, from).await;
                buf = back;
                if sent.is_err() {
                    break;
                }
                buf.clear();
            }
        };
        for _ in 1..TASKS {
            monoio::spawn(echo(Rc::clone(&socket)));
        }
        echo(socket).await;
        Ok(())
    })
}

fn tokio_uring(ready: fn(u16)) -> anyhow::Result<()> {
    tokio_uring::start(async {
        let any = SocketAddr::from(ANY_PORT);
        let socket = Rc::new(tokio_uring::net::UdpSocket::bind(any).await?);
        ready(socket.local_addr()?.port());
        let echo = |socket: Rc<tokio_uring::net::UdpSocket>| async move {
            let mut buf = Vec::with_capacity(DATAGRAM_BYTES_MAX);
            loop {
                let (received, filled) = socket.recv_from(buf).await;
                let Ok((_, from)) = received else { break };
                let (sent, back) = socket.send_to(filled, from).await;
                buf = back;
                if sent.is_err() {
                    break;
                }
                buf.clear();
            }
        };
        for _ in 1..TASKS {
            tokio_uring::spawn(echo(Rc::clone(&socket)));
        }
        echo(socket).await;
        Ok(())
    })
}

fn tokio(ready: fn(u16)) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let socket = tokio::net::UdpSocket::bind(ANY_PORT).await?;
        ready(socket.local_addr()?.port());
        let mut buf = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let (len, from) = socket.recv_from(&mut buf).await?;
            socket.send_to(&buf[..len], from).await?;
        }
    })
}
