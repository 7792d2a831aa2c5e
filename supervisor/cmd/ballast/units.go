package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// bytesText writes a number of bytes in decimal units.
func bytesText[N int | int64 | uint64 | float64](n N) string {
	f := float64(n)
	switch {
	case f < 1e3:
		return fmt.Sprintf("%.0f B", f)
	case f < 1e6:
		return fmt.Sprintf("%.1f kB", f/1e3)
	case f < 1e9:
		return fmt.Sprintf("%.1f MB", f/1e6)
	}
	return fmt.Sprintf("%.2f GB", f/1e9)
}

// countText writes a number with commas between thousands.
func countText[N int | int64 | uint64](n N) string {
	s := strconv.FormatUint(uint64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// timeText writes a duration with three digits or so.
func timeText(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// rate is a number per second.
func rate[N int | int64 | uint64](n N, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// plural is a number and what it counts.
func plural[N int | int64 | uint64](n N, what string) string {
	if n != 1 {
		if stem, ok := strings.CutSuffix(what, "try"); ok {
			what = stem + "trie"
		}
		what += "s"
	}
	return countText(n) + " " + what
}
