// Package messages is the vocabulary of Ballast: the entries, operations,
// commands, replies, events and errors that its actors exchange.
//
// A command is imperative and its reply is the past tense: Append is answered
// by Appended, ReadRange by RangeRead. Every command carries
//
//   - Tag, chosen by the sender and echoed in the reply, so that a sender can
//     have any number of commands under way, and
//   - Group, the Raft group it is about. Zero is the default group: an
//     application with one group never mentions it.
//
// Every command gets exactly one reply, sent to the sender of the command. A
// reply carries Err; its doc comment says what is durable when Err is nil and
// what may be assumed when it is not. Any reply may carry ErrOverloaded,
// ErrUnavailable, ErrStopped, ErrCrashed or ErrInDoubt; the comments name only
// the errors that are particular to a command.
//
// # Ownership
//
// Slices in a command belong to the receiver once it is sent: the sender must
// not change them afterwards. Slices in a reply belong to the requester.
//
// # Errors
//
// The sentinel errors in this package are always wrapped with the store, the
// operation and the index they are about; compare with errors.Is. Damage is a
// *CorruptError, which matches ErrCorrupt and says where.
//
// The package imports only the standard library, and its messages hold no
// process ids, so it can be used (and tested) without an actor engine.
package messages
