package interop

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(programVariable) != "" {
		beProgram()
	}
	if text := os.Getenv(beatVariable); text != "" {
		beBeat(text)
	}
	if url := os.Getenv(djangoBeatVariable); url != "" {
		beDjangoBeat(url)
	}
	// A test waits for the start of a process or for the clock most of the time: as many at once as there are cores would
	// leave these idle.
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := Cleanup(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.Exit(code)
	}))
}
