// Package peers compares Ballast's application data with other stores, each
// committing in groups, in one run and in turns. It is a module of its own, so
// that nobody who uses Ballast gets their dependencies:
//
//	cd kv/peers && go test -run '^$' -bench . -benchtime 1x -v
//
// It has tests and benchmarks only.
package peers
