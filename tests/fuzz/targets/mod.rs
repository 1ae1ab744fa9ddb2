//! What is fuzzed: one function per parser, each fed with any bytes and sure of what must hold.
//!
//! The same functions run under libFuzzer (the package in this folder) and, over the committed
//! corpus, as ordinary tests (`tests/replay.rs`). A function panics if and only if it found a bug.

mod allowed_ips;
mod api;
mod batch;
mod cmsg;
mod configuration;
mod flow;
mod input;
mod ip;
mod ocsp;
mod offload;
mod sign_in;
mod state;
mod sums;
mod wireguard;

/// A parser and its promises.
pub(crate) struct Target {
    /// Names the folder of its corpus.
    pub(crate) name: &'static str,
    /// Panics on a broken promise.
    pub(crate) run: fn(&[u8]),
}

/// Every target.
pub(crate) const ALL: &[Target] = &[
    Target { name: "ip", run: ip::views_agree_with_their_headers },
    Target { name: "segment", run: offload::segments_carry_the_payload_once },
    Target { name: "coalesce", run: offload::coalescing_is_undone_by_segmenting },
    Target { name: "allowed_ips", run: allowed_ips::the_table_agrees_with_a_list },
    Target { name: "wireguard_classify", run: wireguard::messages_have_their_lengths },
    Target { name: "wireguard_initiation", run: wireguard::only_an_unchanged_initiation_passes },
    Target { name: "wireguard_response", run: wireguard::only_an_unchanged_response_passes },
    Target { name: "wireguard_cookie", run: wireguard::only_an_unchanged_cookie_passes },
    Target { name: "wireguard_data", run: wireguard::only_unchanged_data_passes_and_once },
    Target { name: "aead_batch", run: batch::a_call_does_what_one_by_one_does },
    Target { name: "tunnel_state", run: state::a_tunnel_is_written_as_it_was_read },
    Target { name: "state_page", run: state::a_page_is_read_or_refused },
    Target { name: "upgrade_message", run: state::a_message_is_written_as_it_was_read },
    Target { name: "cmsg", run: cmsg::control_messages_are_read_within_bounds },
    Target { name: "uapi", run: configuration::requests_are_parsed_whatever_the_chunks },
    Target { name: "config", run: configuration::a_file_is_accepted_or_refused_with_a_line },
    Target { name: "api_body", run: api::a_body_is_read_whole_or_refused_with_a_place },
    Target { name: "api_config", run: api::a_configuration_is_shown_without_keys_and_restored },
    Target { name: "access_token", run: sign_in::a_token_is_read_or_refused },
    Target { name: "key_set", run: sign_in::a_key_set_is_bounded },
    Target { name: "certificate", run: sign_in::a_certificate_ends_when_it_ends },
    Target { name: "ocsp_answer", run: ocsp::only_an_unchanged_answer_is_believed },
    Target { name: "flow", run: flow::packets_stay_sound_and_answers_are_not_answered },
    Target { name: "path_mtu", run: flow::a_path_stays_within_its_bounds },
];
