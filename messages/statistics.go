package messages

import (
	"math"
	"math/bits"
)

// HistogramBuckets is how many buckets a Histogram has.
const HistogramBuckets = 24

// Histogram counts observations in buckets whose bounds double: bucket i has those
// up to HistogramBound(i) and above the bound before, the last one all that are
// larger. The unit is that of whoever observes. It is not safe for concurrent use.
type Histogram struct {
	Buckets    [HistogramBuckets]uint64
	Count, Sum uint64
}

// HistogramBound is the largest value that bucket i counts: 1, 2, 4, ….
func HistogramBound(i int) uint64 {
	if i >= HistogramBuckets-1 {
		return math.MaxUint64
	}
	return 1 << i
}

// Observe counts a value.
func (h *Histogram) Observe(v uint64) {
	i := 0
	if v > 1 {
		i = min(bits.Len64(v-1), HistogramBuckets-1)
	}
	h.Buckets[i]++
	h.Count++
	h.Sum += v
}

// Quantile is the bound of the bucket that the quantile q, 0 to 1, lies in, so at
// most twice what it is; zero if nothing was observed.
func (h *Histogram) Quantile(q float64) uint64 {
	if h.Count == 0 {
		return 0
	}
	rank := max(uint64(math.Ceil(q*float64(h.Count))), 1)
	for i, n := range h.Buckets {
		if rank <= n {
			return HistogramBound(i)
		}
		rank -= n
	}
	return HistogramBound(HistogramBuckets - 1)
}

// Mean is the mean of all observations.
func (h *Histogram) Mean() float64 {
	return float64(h.Sum) / float64(max(h.Count, 1))
}

// KVStatistics are those of the application data: what was counted since its actor
// was spawned, and how much there is at the moment.
type KVStatistics struct {
	// Applied counts entries, Writes direct writes and commits that were
	// answered with success, Reads gets, scans and queries, also those in views
	// and transactions.
	Applied, Writes, Reads uint64
	// Syncs is how often the file was made durable.
	Syncs uint64

	// Views, Transactions and Watches are open now.
	Views, Transactions, Watches int
	// ViewBytes is what views, transactions and exports hold of what was
	// overwritten since they were opened, HistoryBytes what is kept for watches.
	ViewBytes, HistoryBytes int64
	// Keys of all groups. FileBytes is how long DATA is, LiveBytes what of it is
	// no garbage.
	Keys                 int
	FileBytes, LiveBytes int64
}

// SnapshotStatistics are those of the snapshot actor since it was spawned.
type SnapshotStatistics struct {
	// Saved counts snapshots that became durable, by a save or an import;
	// Failed those that could not be finished; Opened streams from the disk.
	Saved, Failed, Opened uint64
	// WrittenBytes were taken from streams, ReadBytes given to streams: state that
	// is not compressed, but for imports and exports. WriteNanos and ReadNanos are
	// the time that took, in nanoseconds, of all streams together: Bytes/Nanos is
	// the throughput of one.
	WrittenBytes, ReadBytes uint64
	WriteNanos, ReadNanos   uint64
	// Streams are open now.
	Streams int
}
