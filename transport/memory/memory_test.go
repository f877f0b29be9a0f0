package memory

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gelery/gelery/transport"
	"github.com/gelery/gelery/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(t testing.TB) transporttest.Harness {
		name := t.Name()
		url := "memory://" + name
		return transporttest.Harness{
			LowFirst: true,
			Virtual:  true,
			Open: func(t testing.TB) transport.Transport {
				tr, err := transport.Open(t.Context(), url, transport.Options{})
				if err != nil {
					t.Fatal(err)
				}
				return tr
			},
			Inject: func(t testing.TB, queue string, raw []byte) {
				brokersMu.Lock()
				b := brokers[name]
				brokersMu.Unlock()
				b.mu.Lock()
				defer b.mu.Unlock()
				b.put(queue, item{raw: raw}, false)
			},
		}
	})
}
