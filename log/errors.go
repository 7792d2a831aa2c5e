package log

import "errors"

// ErrPoisoned is in the error of every change after a Sync that failed in or
// after the write. What caused it is in the error too. Close and open again.
var ErrPoisoned = errors.New("an earlier sync failed, reopen the log")

// errMalformed is a record whose checksum holds and whose contents make no
// sense.
var errMalformed = errors.New("malformed record")
