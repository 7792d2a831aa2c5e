// Package crashtest enumerates what a power cut could leave of a store's files.
//
// A Recorder is a durable.Disk over a directory. Give it to a store, and it
// follows what the store does to that directory: the steps of durable.Disk come
// through it, and what was written, created or cut in between it finds by
// looking, before every step and whenever Look is called. After each operation
// it calls Event. There, Images rebuilds what a power cut at that moment could
// leave, and a Pool writes each image to a directory of its own and checks it:
//
//	pool := crashtest.NewPool(dir)
//	rec, err := crashtest.Record(root)
//	rec.Event = func(what string) {
//		promised := acknowledged // as it is now
//		rec.Images(what, rng, 1, func(m *crashtest.Image) {
//			pool.Go(m, hash(promised), func(dir string) error { return check(dir, promised) })
//		})
//	}
//	… // open the store with rec as its Disk, and use it
//	rec.Look("acknowledged"), rec.Look("closed")
//	err = errors.Join(rec.Err(), pool.Wait())
//
// # What a power cut may leave
//
// What was synced is there: the bytes and the length of a file after Sync, the
// names in a directory after SyncDir. Of everything else any part may be there:
// all of it or nothing, one file's bytes without another's, a write torn at a
// byte or at a sector, a file that ends within a write, blocks of 8 to 512 bytes
// in any subset, a length without its bytes (they are zero), what a file held
// before its latest writes, any subset of the names that were added, replaced or
// removed, and of each what it has stood for on the way: a file that came and
// went may be there, one that went and came again may not. A rename is two
// changes of names, of which one may be lost. A file that was emptied and written
// anew may be empty, or end anywhere in what is new. Not every subset is tried:
// few by name, the rest at random.
//
// # What is assumed of the store
//
//   - Steps do not overlap, and nothing else writes to the directory while the
//     Recorder looks. A step may begin another one inside, by way of Inside.
//   - Every rename, removal and sync goes through the Disk; a file that
//     disappears otherwise is an error (Err). A file is synced under the name
//     that it was opened with.
//   - The name of the recorded directory itself is durable.
//   - What a file has held between two steps is not seen. One that is emptied and
//     written again at once is taken to be overwritten in place, unless it ends in
//     durable.TempSuffix or Rewritten says so.
//
// Nothing is really synced, so a directory in memory does as well as a disk.
package crashtest
