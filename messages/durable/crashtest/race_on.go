//go:build race

package crashtest

const underRace = 4
