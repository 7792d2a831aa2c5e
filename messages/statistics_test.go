package messages_test

import (
	"math"
	"testing"

	"github.com/ballast-raft/ballast/messages"
)

func TestHistogram(t *testing.T) {
	var h messages.Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 {
		t.Error("an empty one")
	}
	for _, c := range []struct {
		value  uint64
		bucket int
	}{{0, 0}, {1, 0}, {2, 1}, {3, 2}, {4, 2}, {5, 3}, {1 << 22, 22}, {1<<22 + 1, 23}, {math.MaxInt64, 23}} {
		before := h.Buckets[c.bucket]
		if h.Observe(c.value); h.Buckets[c.bucket] != before+1 {
			t.Errorf("%d is not in bucket %d: %v", c.value, c.bucket, h.Buckets)
		}
		if c.value > messages.HistogramBound(c.bucket) || c.bucket > 0 && c.value <= messages.HistogramBound(c.bucket-1) {
			t.Errorf("%d lies beyond the bounds of bucket %d", c.value, c.bucket)
		}
	}
	h = messages.Histogram{}
	for v := range uint64(1000) {
		h.Observe(v + 1)
	}
	if q := h.Quantile(0.5); q != 512 {
		t.Errorf("the median of 1 to 1000 is told as %d", q)
	}
	if q := h.Quantile(1); q != 1024 || h.Count != 1000 || h.Sum != 500500 || h.Mean() != 500.5 {
		t.Errorf("%d, %+v", q, h)
	}
}
