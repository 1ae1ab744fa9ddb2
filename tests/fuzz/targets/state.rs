//! State that one process hands to the next: taken whole or refused, and written again as it was
//! read.

use ringway_control::upgrade::message::Message;
use ringway_dataplane::state::check_page;
use ringway_proto::wireguard::TunnelState;
use ringway_proto::wireguard::export::STATE_BYTES_MAX;

use super::input::Input;
use super::wireguard;

/// Any bytes, and a real record with damage.
pub(crate) fn a_tunnel_is_written_as_it_was_read(bytes: &[u8]) {
    take_tunnel(bytes);
    let mut input = Input::new(bytes);
    let mut record = wireguard::exported();
    input.damage(&mut record);
    let cut = usize::from(input.byte());
    record.truncate(record.len() - cut);
    record.extend_from_slice(input.take(STATE_BYTES_MAX));
    take_tunnel(&record);
}

fn take_tunnel(record: &[u8]) {
    let Ok(state) = TunnelState::parse(record) else { return };
    let mut again = Vec::with_capacity(STATE_BYTES_MAX);
    state.write(&mut again);
    assert_eq!(again, record);
    wireguard::go_on(&state);
}

/// A page of a shard.
pub(crate) fn a_page_is_read_or_refused(bytes: &[u8]) {
    if let Ok(peers) = check_page(bytes) {
        assert!(peers <= bytes.len() / 100, "a record is longer than that");
    }
}

/// A message between two processes of a gateway.
pub(crate) fn a_message_is_written_as_it_was_read(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    let mut again = Vec::new();
    message.write(&mut again);
    assert_eq!(Message::parse(&again).as_ref(), Ok(&message));
}
