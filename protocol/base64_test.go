package protocol_test

import (
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gelery/gelery/protocol"
)

// TestBodyInBase64: to the byte what the standard library makes of bodies of any length.
func TestBodyInBase64(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	room := make([]byte, 0, 4096)
	for n := range 1000 {
		body := make([]byte, n)
		for i := range body {
			body[i] = byte(r.UintN(256))
		}
		want := `{"body": "` + base64.StdEncoding.EncodeToString(body) + `", `
		for _, dst := range [][]byte{nil, room} {
			if got := string(protocol.AppendEnvelope(dst, &protocol.Message{Body: body})); !strings.HasPrefix(got, want) {
				t.Fatalf("%d bytes become %s; want %s", n, got, want)
			}
		}
	}
}
