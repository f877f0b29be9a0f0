// Package testservice starts the real servers that tests need, each for the test that asks, and breaks them on demand.
//
// A server's program is found by an environment variable (REDIS_SERVER) or on the PATH. Where it is missing the test is
// skipped with a line that says so, unless GELERY_TEST_SERVERS=required, which makes it a failure: what `make test` sets.
package testservice

import (
	"os"
	"os/exec"
	"testing"

	"github.com/alicebob/miniredis/v2"
)

// Program returns the path of a program that a test needs: what the environment variable names, or name on the PATH.
// Where it is neither, it ends the test by the rule above.
func Program(t testing.TB, env, name string) string {
	t.Helper()
	if path := os.Getenv(env); path != "" {
		return path
	}
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("GELERY_TEST_SERVERS") == "required" {
		t.Fatalf("%s is not installed and %s is not set, but GELERY_TEST_SERVERS=required", name, env)
	}
	t.Skipf("%s is not installed and %s is not set: skipping what needs it", name, env)
	return ""
}

// Miniredis starts an in-process miniredis for this test and returns its URL. Its clock stands still.
func Miniredis(t testing.TB) string {
	t.Helper()
	s, err := miniredis.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return "redis://" + s.Addr() + "/0"
}
