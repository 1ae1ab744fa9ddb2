//! The store on both of its real engines: SQLite in a file, PostgreSQL as the distribution has it.
//!
//! Each promise is one function and runs on both. A PostgreSQL server of its own is started once
//! per run, on a Unix socket in a scratch folder, and each test has a database of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

mod audit;
mod encrypted;
mod lists;
mod made;
mod model;
mod outages;
mod people;
mod privacy;
mod rules;
mod server;
mod sessions;
mod size;
mod sqlite;
mod together;
mod usage;
mod versions;
mod world;

/// Runs each promise on both engines, as a test with the name of the promise.
macro_rules! on_each_engine {
    ($($name:ident: $run:path;)*) => {
        mod on_sqlite {
            $(#[test] fn $name() { $run(&crate::world::World::sqlite()); })*
        }

        mod on_postgresql {
            $(#[test] fn $name() { $run(&crate::world::World::postgres()); })*
        }
    };
}

on_each_engine! {
    users_are_kept_as_they_were_given: crate::people::users_are_kept;
    names_are_unique_and_the_error_names_field_and_value: crate::people::names_are_unique;
    a_change_is_refused_if_somebody_else_made_one_meanwhile: crate::people::stale;
    removing_a_user_removes_what_is_theirs: crate::people::removal;
    a_one_time_password_is_accepted_once: crate::people::totp;
    a_counter_of_one_time_passwords_is_accepted_once_and_none_before_it: crate::people::hotp;
    what_an_older_store_has_goes_by_time: crate::versions::fifth;
    devices_are_found_by_key_and_keep_their_access: crate::people::devices;
    certificates_of_an_access_are_kept_with_those_above_them: crate::people::certificates;
    an_address_is_leased_once: crate::people::leases;
    tokens_are_found_by_the_hash_of_their_secret: crate::people::tokens;
    an_invitation_works_once_and_not_after_its_end: crate::people::enrolments;
    groups_policies_and_pools_are_kept_as_they_were_given: crate::rules::kept;
    what_is_in_use_is_not_removed_and_the_error_says_by_whom: crate::rules::in_use;
    what_does_not_exist_is_not_referred_to: crate::rules::missing;
    a_new_store_has_a_default_policy_that_stays: crate::rules::default_policy;
    configurations_bans_and_settings_are_kept: crate::rules::small_things;
    lists_are_walked_page_by_page_without_gaps: crate::lists::pages;
    filters_choose_users_and_devices: crate::lists::filters;
    everything_the_projection_needs_comes_in_one_piece: crate::lists::access;
    usage_adds_up_and_marks_say_how_far_it_is_entered: crate::usage::adds_up;
    connections_are_listed_filtered_and_purged: crate::usage::connections;
    what_happened_to_sessions_is_in_the_log_once_however_often_it_is_told: crate::sessions::once;
    what_lives_is_noted_by_gateway_and_only_if_its_beginning_was_told: crate::sessions::noted;
    the_audit_log_is_a_chain_that_holds: crate::audit::holds;
    any_change_to_the_audit_log_is_found: crate::audit::tampering;
    a_person_is_shown_everything_but_secrets: crate::privacy::export;
    an_erased_person_leaves_no_name_behind_and_the_chain_holds: crate::privacy::erasure;
    a_write_is_all_or_nothing: crate::together::all_or_nothing;
    an_attempt_that_fails_leaves_the_rest: crate::together::attempts;
    a_change_that_nobody_waits_for_any_more_is_not_kept: crate::together::going_away;
    a_reader_does_not_write: crate::together::readers;
    of_many_that_use_an_invitation_at_once_one_wins: crate::together::one_wins;
    gateways_that_lease_at_once_never_share_an_address: crate::together::leasing;
    who_follows_changes_misses_none_however_many_write: crate::together::following;
    work_that_panics_leaves_the_store_in_order: crate::together::panics;
    two_gateways_that_start_at_once_make_one_store: crate::versions::at_once;
    a_store_of_a_later_version_is_refused: crate::versions::newer;
    a_migration_that_fails_leaves_nothing_behind: crate::versions::half;
    a_history_from_before_gateways_were_told_apart_goes_to_the_first: crate::versions::histories;
    a_full_queue_and_a_late_answer_are_errors_in_time: crate::outages::queue;
    random_work_ends_as_the_model_says: crate::model::random_work;
}
