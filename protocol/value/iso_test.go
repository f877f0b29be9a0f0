package value

import (
	"encoding/json"
	"testing"
	"time"
)

func TestParseISO(t *testing.T) {
	t.Parallel()
	at := func(micro int, loc *time.Location) time.Time {
		return time.Date(2026, 1, 2, 3, 4, 5, micro*1000, loc)
	}
	tests := []struct {
		in    string
		want  time.Time
		aware bool
	}{
		{"2026-01-02T03:04:05", at(0, utc), false},
		{"2026-01-02 03:04:05", at(0, utc), false},
		{"2026-01-02T03:04:05Z", at(0, utc), true},
		{"2026-01-02T03:04:05+00:00", at(0, utc), true},
		{"2026-01-02T03:04:05-0000", at(0, utc), true},
		{"2026-01-02T03:04:05.5", at(500000, utc), false},
		{"2026-01-02T03:04:05.000678+02:00", at(678, plusTwo), true},
		{"2026-01-02T03:04:05.123456789-0530", at(123456, minusHalf), true},
		{"2026-01-02T03:04:05.+02", at(0, plusTwo), true},
		{"2026-01-02T03:04Z", time.Date(2026, 1, 2, 3, 4, 0, 0, utc), true},
		{"2026-01-02T03:04:05+00:53:28", at(0, time.FixedZone("", 53*60+28)), true},
		{"2026-01-02", time.Date(2026, 1, 2, 0, 0, 0, 0, utc), false},
		{"2024-02-29", time.Date(2024, 2, 29, 0, 0, 0, 0, utc), false},
	}
	for _, tt := range tests {
		got, aware, err := ParseISO(tt.in)
		if err != nil || !got.Equal(tt.want) || aware != tt.aware || got.Format(time.RFC3339) != tt.want.Format(time.RFC3339) {
			t.Errorf("ParseISO(%q) = %v, %v, %v; want %v, %v", tt.in, got, aware, err, tt.want, tt.aware)
		}
	}
	for _, bad := range []string{
		"", "garbage", "5", "2026-01-02T", "2026-1-2", "2026-13-01", "2026-02-29", "2026-00-01", "0000-01-01",
		"2026-01-02T24:00:00", "2026-01-02T03:60", "2026-01-02T03:04:60", "2026-01-02T03:04:05+24:00",
		"2026-01-02T03:04:05.1234567890", "2026-01-02T03:04:05Zx", "2026-01-02x03:04:05", "2026-01-02T03:04:05+0",
		" 2026-01-02", "2026-01-02 ",
	} {
		if got, _, err := ParseISO(bad); err == nil {
			t.Errorf("ParseISO(%q) = %v, want an error", bad, got)
		}
	}
}

func TestFormatISO(t *testing.T) {
	t.Parallel()
	tests := map[string]time.Time{
		"2026-01-02T03:04:05.000000+00:00":    time.Date(2026, 1, 2, 3, 4, 5, 999, utc),
		"2026-01-02T03:04:05.000678+02:00":    time.Date(2026, 1, 2, 3, 4, 5, 678000, plusTwo),
		"0001-01-01T00:00:00.000000+00:00":    {},
		"2026-01-02T03:04:05.000000-00:00:30": time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", -30)),
	}
	for want, in := range tests {
		if got := FormatISO(in); got != want {
			t.Errorf("FormatISO(%v) = %s, want %s", in, got, want)
		}
	}
}

func TestDateAndTimeText(t *testing.T) {
	t.Parallel()
	if d, err := ParseDate("2024-01-02T00:00:00"); err != nil || d != (Date{2024, 1, 2}) {
		t.Errorf("a 5.2 date reads as %v, %v", d, err)
	}
	for in, want := range map[string]TimeOfDay{
		"01:02":            TimeOfDay(time.Hour + 2*time.Minute),
		"23:59:59.9999999": TimeOfDay(24*time.Hour - time.Microsecond),
	} {
		if got, err := ParseTimeOfDay(in); err != nil || got != want {
			t.Errorf("ParseTimeOfDay(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "1:02", "24:00", "01:02:03Z", "01"} {
		if got, err := ParseTimeOfDay(bad); err == nil {
			t.Errorf("ParseTimeOfDay(%q) = %v, want an error", bad, got)
		}
	}
	type doc struct {
		D Date
		T TimeOfDay
		L LocalTime
	}
	in := doc{Date{2024, 1, 2}, TimeOfDay(time.Minute), LocalTime{time.Date(2024, 1, 2, 3, 4, 5, 6000, utc)}}
	text, err := json.Marshal(in)
	const want = `{"D":"2024-01-02","T":"00:01:00.000000","L":"2024-01-02T03:04:05.000006"}`
	if err != nil || string(text) != want {
		t.Fatalf("%s, %v; want %s", text, err, want)
	}
	var out doc
	if err := json.Unmarshal(text, &out); err != nil || out != in {
		t.Errorf("%v, %v; want %v", out, err, in)
	}
}

func FuzzParseISO(f *testing.F) {
	for _, s := range []string{"2026-01-02T03:04:05.000678+02:00", "2026-01-02", "2026-01-02 03:04Z", "0001-01-01T00:00-2359"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, aware, err := ParseISO(s)
		if err != nil {
			return
		}
		text := FormatISO(got)
		again, awareAgain, err := ParseISO(text)
		if err != nil || !again.Equal(got) || !awareAgain || FormatISO(again) != text {
			t.Fatalf("%q is %v (%v), written as %q, read as %v, %v", s, got, aware, text, again, err)
		}
		if std, err := time.Parse(time.RFC3339, s); err == nil && !std.Truncate(time.Microsecond).Equal(got) {
			t.Fatalf("%q is %v, package time says %v", s, got, std)
		}
	})
}
