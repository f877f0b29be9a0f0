package flower

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/gelery/gelery/interop"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := interop.Cleanup(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.Exit(code)
	}))
}
