// Package peers measures other write-ahead logs beside Ballast's own: the same
// entries, the same disk, in turns with each other and with the limit, which is
// write and fdatasync of the same payload into a file that was filled with zeros
// before.
//
//	cd log/peers && go test -bench . -benchtime 1x
//
// It is a module of its own, so that nobody who uses Ballast gets its
// dependencies.
package peers
