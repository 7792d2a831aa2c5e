// Package durable holds the few file-system steps that a store must take before
// it may acknowledge a message, and nothing else: syncing data, syncing the
// directory that names it, replacing a file in one step, locking a directory,
// and marking how far a file is known to be on disk.
//
// All of them go through a Disk, so that a test can count, fail, delay or
// record each step; package crashtest, below, records them and rebuilds what a
// power cut could leave. The rules they follow:
//
//   - A file's name is durable only after its directory was synced. Journalling
//     file systems often get this right by accident; POSIX does not promise it.
//   - A sync that failed has told the truth once: the kernel marks the pages
//     clean and the next sync succeeds (the "fsyncgate" of 2018). After a
//     failure nothing that was written since the last good sync may be trusted
//     until it has been written again.
package durable
