// Package peers measures package snapshot beside what others use for the same
// purpose. It is a module of its own, so that nobody who uses Ballast gets their
// dependencies:
//
//	cd snapshot/peers && go test -bench . -benchtime 5x
package peers
