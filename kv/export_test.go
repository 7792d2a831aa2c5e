package kv

import "os"

// Sealed reports whether a file of a generation has its seal.
func Sealed(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	sv, err := examine(f, info.Size(), visitor{})
	return sv.sealed > 0, err
}
