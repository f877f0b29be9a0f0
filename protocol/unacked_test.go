package protocol

import "testing"

func TestSplitUnacked(t *testing.T) {
	for value, want := range map[string][3]string{
		`[{"a": 1.0, "b": NaN}, "", "q"]`: {`{"a": 1.0, "b": NaN}`, "", "q"},
		`[{"x": "],["},"ex\"","r\u00e9"]`: {`{"x": "],["}`, `ex"`, "ré"},
		`[ {} , null , "q" ]`:             {`{}`, "", "q"},
	} {
		envelope, exchange, key, err := SplitUnacked([]byte(value))
		if got := [3]string{string(envelope), exchange, key}; err != nil || got != want {
			t.Errorf("%s: %q, %v; expected %q", value, got, err, want)
		}
	}
	for _, bad := range []string{``, `{}`, `[]`, `[{}, ""]`, `[{}, "", "q", 1]`, `[{}, "", "q"] x`, `[{`, `not json`} {
		if _, _, _, err := SplitUnacked([]byte(bad)); err == nil {
			t.Errorf("%q was taken for an unacked value", bad)
		}
	}
}

func FuzzSplitUnacked(f *testing.F) {
	f.Add([]byte(`[{"a": NaN}, "", "q"]`))
	f.Add([]byte(`[[], null, "\ud800"]`))
	f.Fuzz(func(t *testing.T, value []byte) {
		envelope, _, _, err := SplitUnacked(value)
		if err == nil && (len(envelope) == 0 || len(envelope) > len(value)-2) {
			t.Errorf("%q gave the envelope %q", value, envelope)
		}
	})
}
