// Mutations: known wrong variants of the journal's rules, each switched on in its own test build.
//
// A test that cannot fail proves nothing. So tests/crash builds the journal once per mutation and expects the crash
// explorer to find a violation in each. What is installed is built with kNone, and every `if constexpr` below folds
// away. Included by .cc files only, so that a header means the same in every build.
#pragma once

#include <cstdint>

#ifndef RMEMFS_JOURNAL_MUTATION
#define RMEMFS_JOURNAL_MUTATION kNone
#endif

namespace rmemfs {

enum class Mutation : std::uint8_t {
  kNone,
  // The rows that model checking found wrong (ARCHITECTURE.md, micro-journal).
  kHeaderCrcOnly,        // J1: the CRC covers the header alone: a new id may stand over an old payload
  kReplayAll,            // J8: recovery replays every valid slot of the epoch, whatever the watermark says
  kFreeAfterApply,       // J4: a slot is free once it is applied, before the home is durable
  kWatermarkAfterData,   // J3: the watermark is a batch of its own, after the data
  kWatermarkBeforeData,  // J3: the same, before the data
  kWatermarkBackwards,   // J3: the watermark is set back after a batch
  kFreeAboveDurable,     // J4: a durability round frees all that is applied, also what came after it began
  kRetireBySlot,         // J5: a durability round frees the slots that it saw, whoever owns them now
  kApplyOutOfOrder,      // J3: what is handed over is applied although a lower id is not
  kClearDescending,      // J8: slots in use are told by valid headers, and recovery clears them in descending order
  kHoldAndWait,          // J6: a reservation keeps what it got and waits for the rest
  kNobodyDrains,         // J6: who finds no free slot waits, and nobody tells the home to make room (threads)
  // Further ones, of the same rules.
  kNoPayloadFlush,          // J2: the payload is not flushed before the drain
  kNoDrain,                 // J2: a commit returns without its drain
  kNoEpochStep,             // J8: recovery leaves the epoch, so a discarded transaction may come back
  kEpochStepBeforeDurable,  // J8: the epoch steps before the home is durable
  kReplayPastGap,           // J8: recovery goes on behind a missing id
  kSyncCoversLater,         // a sync claims ids that were committed after it began
  kPersistedClaimsSelf,     // J7: on an ordinary file, a header claims ids that nothing made persistent
};

inline constexpr Mutation kMutation = Mutation::RMEMFS_JOURNAL_MUTATION;

constexpr bool mutated(Mutation mutation) { return kMutation == mutation; }

}  // namespace rmemfs
