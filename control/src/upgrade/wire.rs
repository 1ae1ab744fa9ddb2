//! The wire between two processes of a gateway: framed messages over a Unix socket, with
//! descriptors, sealed.
//!
//! Both say hello in the clear, each with an ephemeral key; everything after it is encrypted under
//! keys agreed from both and from what was said. A frame is its length and its bytes, at most
//! [`FRAME_BYTES_MAX`]. Descriptors travel with the frame that tells what they are. Who the other
//! one is says the socket ([`crate::listen`] lets only the owner in, and the kernel knows its
//! user). This file must not know what the messages are for.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "any other message is unexpected, also one that is new"
)]

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ringway_proto::crypto::{AeadKey, PrivateKey, PublicKey, TAG_BYTES, hash, kdf};
use ringway_proto::record::RecordError;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::message::{Hello, Message};
use crate::keys::SystemRandom;

/// Bytes of a frame at most: a page of sessions, or a piece of the configuration.
pub const FRAME_BYTES_MAX: usize = 128 << 10;

/// Descriptors in one frame at most; the kernel allows 253.
pub const DESCRIPTORS_MAX: usize = 32;

/// Version of the conversation. Another one is refused.
pub const VERSION: u16 = 1;

/// How long one frame may take.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a frame's length.
const HEAD_BYTES: usize = 4;

/// Why the conversation ended.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The socket.
    #[error("The other process cannot be reached any more: {0}")]
    Io(#[from] io::Error),
    /// It has hung up.
    #[error("The other process has gone")]
    Gone,
    /// It says nothing.
    #[error("The other process says nothing")]
    Silent,
    /// It says what cannot be understood, or what is not sealed with our keys.
    #[error("The other process says what cannot be understood")]
    Garbled,
    /// It says something else.
    #[error("The other process says {said} where {wanted} was expected")]
    Unexpected {
        /// What was said.
        said: &'static str,
        /// What would have been understood.
        wanted: &'static str,
    },
    /// It does not want to.
    #[error("{0}")]
    Refused(String),
}

impl From<RecordError> for WireError {
    fn from(_: RecordError) -> Self {
        Self::Garbled
    }
}

/// One end.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
    keys: Option<Keys>,
    /// Memory of the frame that is sent or received.
    frame: Zeroizing<Vec<u8>>,
    /// What came with frames and was not asked for yet.
    descriptors: VecDeque<OwnedFd>,
    /// Bytes of frames sent and received.
    moved: u64,
    /// A frame was begun and not ended: nothing that followed would be understood.
    cut: bool,
}

/// Both directions, each with its counter.
#[derive(Debug)]
struct Keys {
    send: AeadKey,
    sent: u64,
    receive: AeadKey,
    received: u64,
}

impl Wire {
    /// Says hello and agrees on keys. `first` is the process that asked.
    ///
    /// # Errors
    /// [`WireError`]; another version is [`WireError::Refused`].
    pub async fn open(
        stream: UnixStream,
        first: bool,
        program: &str,
    ) -> Result<(Self, Hello), WireError> {
        let frame = Zeroizing::new(Vec::with_capacity(HEAD_BYTES + FRAME_BYTES_MAX));
        let descriptors = VecDeque::new();
        let mut wire = Self { stream, keys: None, frame, descriptors, moved: 0, cut: false };
        let private = PrivateKey::generate(&mut SystemRandom);
        let public = private.public();
        let own = Hello { version: VERSION, program: program.to_owned(), key: public };
        let theirs = if first {
            wire.send(&Message::Hello(own)).await?;
            wire.hello().await?
        } else {
            let theirs = wire.hello().await?;
            // Also to another version, so that it can say what it met.
            wire.send(&Message::Hello(own)).await?;
            theirs
        };
        if theirs.version != VERSION {
            let why = format!(
                "The other process ({}) speaks version {} of the upgrade and this one ({program}) \
                 version {VERSION}: stop the gateway and start the new program instead",
                theirs.program, theirs.version
            );
            return Err(WireError::Refused(why));
        }
        wire.keys = Some(Keys::agree(&private, &public, &theirs.key, first)?);
        Ok((wire, theirs))
    }

    async fn hello(&mut self) -> Result<Hello, WireError> {
        match self.receive(FRAME_TIMEOUT).await? {
            Message::Hello(hello) => Ok(hello),
            other => Err(other.unexpected("a greeting")),
        }
    }

    /// Sends a message. Once this was given up half-way, nothing more can be sent.
    ///
    /// # Errors
    /// [`WireError::Io`], [`WireError::Silent`] if it is not taken in time.
    pub async fn send(&mut self, message: &Message) -> Result<(), WireError> {
        self.send_with(message, &[]).await
    }

    /// Sends a message with descriptors.
    ///
    /// # Errors
    /// As [`Wire::send`].
    ///
    /// # Panics
    /// If there are more than [`DESCRIPTORS_MAX`], or the message is longer than a frame.
    pub async fn send_with(
        &mut self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), WireError> {
        assert!(descriptors.len() <= DESCRIPTORS_MAX);
        if self.cut {
            return Err(WireError::Silent);
        }
        self.frame.clear();
        self.frame.extend_from_slice(&[0; HEAD_BYTES]);
        message.write(&mut self.frame);
        let sealed = if self.keys.is_some() { TAG_BYTES } else { 0 };
        let len = self.frame.len() - HEAD_BYTES + sealed;
        assert!(len <= FRAME_BYTES_MAX, "a message fits into a frame");
        let head = (len as u32).to_le_bytes();
        self.frame[..HEAD_BYTES].copy_from_slice(&head);
        if let Some(keys) = &mut self.keys {
            let tag = keys.send.seal(keys.sent, &head, &mut self.frame[HEAD_BYTES..]);
            keys.sent += 1;
            self.frame.extend_from_slice(&tag);
        }
        self.moved += self.frame.len() as u64;
        // Stays so if whoever waits here gives up.
        self.cut = true;
        let write = write_all(&self.stream, &self.frame, descriptors);
        timeout(FRAME_TIMEOUT, write).await.map_err(|_| WireError::Silent)??;
        self.cut = false;
        Ok(())
    }

    /// The next message, which has to begin within this time. A refusal is an error.
    ///
    /// # Errors
    /// [`WireError`].
    pub async fn receive(&mut self, within: Duration) -> Result<Message, WireError> {
        let mut head = [0; HEAD_BYTES];
        let Self { stream, descriptors, .. } = self;
        let read = read_exact(stream, &mut head, descriptors);
        timeout(within, read).await.map_err(|_| WireError::Silent)??;
        let len = u32::from_le_bytes(head) as usize;
        if len > FRAME_BYTES_MAX {
            return Err(WireError::Garbled);
        }
        self.frame.clear();
        self.frame.resize(len, 0);
        let Self { stream, descriptors, frame, keys, .. } = self;
        let read = read_exact(stream, frame, descriptors);
        timeout(FRAME_TIMEOUT, read).await.map_err(|_| WireError::Silent)??;
        self.moved += (HEAD_BYTES + len) as u64;
        let mut text = &mut frame[..];
        if let Some(keys) = keys {
            let (body, tag) = text.split_last_chunk_mut().ok_or(WireError::Garbled)?;
            let opened = keys.receive.open(keys.received, &head, body, tag);
            opened.map_err(|_| WireError::Garbled)?;
            keys.received += 1;
            text = body;
        }
        match Message::parse(text)? {
            Message::Refuse { why } => Err(WireError::Refused(why)),
            message => Ok(message),
        }
    }

    /// The next descriptor that came with a message.
    ///
    /// # Errors
    /// [`WireError::Garbled`] if there is none.
    pub fn descriptor(&mut self) -> Result<OwnedFd, WireError> {
        self.descriptors.pop_front().ok_or(WireError::Garbled)
    }

    /// Bytes moved so far, both ways.
    #[must_use]
    pub const fn moved(&self) -> u64 {
        self.moved
    }
}

impl Keys {
    /// Keys of both directions, bound to both greetings.
    fn agree(
        private: &PrivateKey,
        own: &PublicKey,
        theirs: &PublicKey,
        first: bool,
    ) -> Result<Self, WireError> {
        let shared = private.agree(theirs).ok_or(WireError::Garbled)?;
        let [asking, asked] = if first { [own, theirs] } else { [theirs, own] };
        let version = VERSION.to_le_bytes();
        let said = hash(&[b"ringway upgrade", &version, &asking.0, &asked.0]);
        let keys = kdf::<2>(&said, &shared[..]);
        let [send, receive] = if first { [&keys[0], &keys[1]] } else { [&keys[1], &keys[0]] };
        Ok(Self { send: AeadKey::new(send), sent: 0, receive: AeadKey::new(receive), received: 0 })
    }
}

async fn write_all(
    stream: &UnixStream,
    mut bytes: &[u8],
    mut descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    while !bytes.is_empty() {
        let write = || {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                let pushed = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
                assert!(pushed, "there is room for all descriptors of a frame");
            }
            let flags = SendFlags::NOSIGNAL;
            Ok(sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut ancillary, flags)?)
        };
        let written = stream.async_io(Interest::WRITABLE, write).await?;
        // They went with the first byte.
        descriptors = &[];
        bytes = &bytes[written..];
    }
    Ok(())
}

async fn read_exact(
    stream: &UnixStream,
    mut bytes: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> Result<(), WireError> {
    while !bytes.is_empty() {
        let read = || {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            let slices = &mut [IoSliceMut::new(bytes)];
            let received = recvmsg(stream.as_fd(), slices, &mut ancillary, flags)?;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    descriptors.extend(rights);
                }
            }
            Ok(received.bytes)
        };
        let count = stream.async_io(Interest::READABLE, read).await?;
        if count == 0 {
            return Err(WireError::Gone);
        }
        bytes = &mut bytes[count..];
    }
    Ok(())
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
