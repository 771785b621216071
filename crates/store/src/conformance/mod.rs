//! The suite that holds every backend to the laws: one named test a case.
//!
//! A backend brings a [`Harness`] and calls [`store_conformance!`](crate::store_conformance); what
//! the suite cannot say by hand it says by comparison: [`compare`] runs one stream of commands on
//! two stores and wants the same answers.

pub mod admin;
pub mod claim;
pub mod durability;
pub mod enqueue;
pub mod gates;
pub mod heal;
pub mod keys;
pub mod leases;
pub mod looking;
pub mod settle;

mod compare;
mod drain;
mod normal;
mod scene;
mod stream;

use std::sync::Arc;

use async_trait::async_trait;
use waystation_core::message::NodeId;

use crate::Store;

pub use compare::compare;
pub use drain::comes_to_an_end;
pub use stream::Command;
pub use stream::Like;
pub use stream::Stream;
pub use stream::What;

/// What the suite needs to know of a backend. Each test opens a fresh, empty one.
#[async_trait]
pub trait Harness: Send + Sync {
    /// Gives the store, as one process sees it.
    fn store(&self) -> Arc<dyn Store>;

    /// Opens the store a second time, as another process would.
    async fn attach(&self) -> Arc<dyn Store>;

    /// Ends all processes on the store as kill -9 does, and opens what they left; afterwards
    /// [`Harness::store`] gives the new process's.
    async fn reopen(&mut self);

    /// Ends the process of a node, which joined through [`Harness::attach`]'s store, as kill -9 does;
    /// says whether the store sees that before its leases expire.
    async fn kill(&self, node: NodeId) -> bool;
}

/// Makes one named test of each case, by area: `store_conformance!(MyHarness::open().await);`. Stands
/// at the top of a module of a test, and needs tokio's `macros` and `rt`.
#[macro_export]
macro_rules! store_conformance {
    ($harness:expr) => {
        $crate::conformance_cases!($harness =>
            enqueue {
                one_key_one_message
                same_key_with_another_body_is_refused_and_writes_nothing
                same_key_twice_in_a_batch_is_one_message
                key_mismatch_within_a_batch_is_refused
                requests_of_one_moment_spoil_nobody
                idempotency_key_is_free_after_its_retention
                duplicate_shows_where_the_first_stands
                duplicate_of_a_pruned_message_answers_the_first_id
                fresh_message_waits_in_its_first_generation
                due_date_in_the_past_is_taken_for_now
                ids_order_by_acceptance
                one_lane_too_many_is_refused
                store_time_never_goes_backwards
                fresh_message_is_born_leased
                birth_stops_at_the_room_asked_for
                birth_needs_a_lane_with_nothing_due
                birth_needs_open_gates_with_room
                birth_needs_a_kind_that_is_handled
                birth_needs_a_message_that_is_due_and_alive
                birth_needs_a_key_with_nobody_before
            }
            claim {
                claim_raises_fence_and_attempt
                higher_priority_goes_first
                equals_go_by_due_time_then_acceptance
                every_sixteenth_slot_goes_to_the_longest_due
                expired_message_hides_none_of_its_level
                lane_that_holds_much_lets_others_go_first
                nothing_is_given_before_it_is_due
                lanes_share_room_evenly
                lanes_behind_one_gate_share_it
                kinds_and_queues_limit_a_claim
                struck_message_is_given_alone_and_on_demand
                probes_bring_one_struck_message
                expired_message_is_cancelled
                expiry_sets_off_its_follow_up
                claim_says_when_to_come_again
                concurrency_holds_across_claims
                full_lane_says_when_its_next_is_due
                rate_holds_across_claims
            }
            leases {
                expired_lease_is_lost_once
                lost_delivery_is_the_attempt_that_was_lost
                lost_delivery_shows_the_gates_of_now
                dead_nodes_leases_are_lost_at_once
                leaving_ends_tied_leases
                extended_lease_is_not_lost
                stale_lease_is_not_extended
                leases_are_read_back
                slow_clock_shortens_no_lease
                grace_that_is_over_is_given_for_a_last_look
                lost_last_look_is_given_again
                attempts_are_contiguous_across_losses
            }
            settle {
                stale_fence_changes_nothing
                changed_epoch_is_a_conflict
                success_does_not_ask_for_epochs
                completed_message_is_read_with_its_attempt
                failed_attempt_is_kept_with_its_error
                each_settlement_stands_for_itself
                retry_is_never_due_in_the_past
                parked_message_keeps_its_reason
                follow_up_is_written_with_the_end
                follow_up_of_a_retry_is_not_written
                deaths_beyond_the_budget_are_parked
                settling_says_whether_there_is_work
                scheduled_follower_that_became_the_head_is_work
                room_for_another_lane_is_work
            }
            gates {
                closed_gate_lets_nothing_through
                evidence_is_folded_once_per_gate
                one_probe_in_the_fleet
                trip_quarantines_what_waits
                probe_is_the_longest_due_message
                failed_probe_goes_to_the_end_of_the_line
                successful_probe_begins_the_ramp
                ramp_gives_half_to_fresh_messages
                health_check_probes_instead_of_a_message
                probe_without_a_message_wakes_nobody
                late_word_of_an_older_epoch_moves_nothing
                asked_for_silence_is_kept
                extended_lease_extends_its_probe
                forced_open_waits_for_a_person_and_disabled_passes
                gate_that_nothing_is_known_of_is_closed
            }
            keys {
                only_the_head_is_ready
                failing_head_delays_its_followers
                dead_head_blocks_its_followers
                dead_head_is_skipped_where_told_so
                replay_keeps_its_place_while_nothing_later_ran
                replay_goes_to_the_end_once_a_later_one_ran
                cancelling_a_dead_head_frees_its_key
                parked_head_holds_its_followers
                follower_that_is_cancelled_leaves_the_line
                key_is_one_line_across_lanes_of_a_queue
                key_of_another_queue_is_another_key
            }
            heal {
                counts_add_up
                expiry_is_swept_in_pieces
                trip_gives_back_earlier_failures
                refunds_come_in_pieces
                refund_ends_a_grace
                finished_messages_leave_after_their_retention
                retention_comes_in_pieces
                idle_lane_is_forgotten_and_its_queue_still_adds_up
                incident_ends_when_deaths_are_over
                probe_that_is_lost_opens_its_circuit_again
                healing_says_when_it_is_wanted_again
            }
            admin {
                retry_makes_a_waiting_message_due
                replay_begins_the_next_generation
                cancel_takes_the_lease_away
                parked_by_a_person_until_unparked
                edit_adds_a_version
                edit_of_an_older_fence_is_stale
                edit_moves_to_another_lane
                operation_that_the_state_forbids_changes_nothing
                incident_is_released_in_pieces
                order_raises_the_epoch
                persons_write_rings
                other_process_is_rung
            }
            looking {
                view_is_the_first_that_fits
                pages_go_on_where_they_ended
                filters_hold_together
                lane_shows_what_is_due
                queue_shows_its_pause
                circuit_shows_what_waits_behind_it
                unknown_message_is_unknown
                healthy_store_accepts
            }
            durability {
                returned_means_durable
                idempotency_survives_reopening
                order_of_a_key_survives_reopening
                circuit_survives_reopening
                leases_of_a_killed_process_come_back
                time_survives_reopening
                counts_survive_reopening
            }
        );
    };
}

/// Makes the tests of [`store_conformance!`](crate::store_conformance).
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($harness:expr => $($area:ident { $($case:ident)* })*) => {
        $(
            mod $area {
                use super::*;

                $(
                    #[tokio::test]
                    async fn $case() {
                        let mut harness = $harness;
                        $crate::conformance::$area::$case(&mut harness).await;
                    }
                )*
            }
        )*
    };
}
