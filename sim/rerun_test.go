package sim_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
)

// rerun runs one test of this binary in a process of its own, for what must
// fail.
func rerun(test string, env ...string) (string, error) {
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }
