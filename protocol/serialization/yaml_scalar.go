package serialization

import (
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"

	"github.com/gelery/gelery/protocol/value"
)

// The forms of plain scalars are those of YAML 1.1 in PyYAML's reading, which differs from the library's.
var (
	yamlInt = regexp.MustCompile(`^[-+]?(0b[01_]+|0[0-7_]*|[1-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(:[0-5]?[0-9])+)$`)

	yamlFloat = regexp.MustCompile(`^([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?|` +
		`[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*)$`)

	yamlTime = regexp.MustCompile(`^(\d{4})-(\d\d?)-(\d\d?)(?:(?:[Tt]|[ \t]+)(\d\d?):(\d\d):(\d\d)(?:\.(\d*))?` +
		`(?:[ \t]*(Z|([-+])(\d\d?)(?::(\d\d))?))?)?$`)
)

// resolveYAML gives a plain scalar the type its text has.
func resolveYAML(s string) (any, error) {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return nil, nil
	case "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON":
		return true, nil
	case "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF":
		return false, nil
	case ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF":
		return math.Inf(1), nil
	case "-.inf", "-.Inf", "-.INF":
		return math.Inf(-1), nil
	case ".nan", ".NaN", ".NAN":
		return math.NaN(), nil
	}
	if c := s[0]; c != '-' && c != '+' && c != '.' && c-'0' > 9 {
		return s, nil
	}
	switch {
	case len(s) > value.MaxDigits*2: // no number
		return s, nil
	case yamlInt.MatchString(s):
		return yamlInteger(strings.ReplaceAll(s, "_", ""))
	case yamlFloat.MatchString(s):
		return yamlFloating(strings.ReplaceAll(s, "_", ""))
	}
	if parts := yamlTime.FindStringSubmatch(s); parts != nil {
		return yamlTimestamp(s, parts)
	}
	return s, nil
}

func yamlInteger(s string) (any, error) {
	sign, digits := cutSign(s)
	base := 10
	switch {
	case strings.Contains(digits, ":"):
		return sexagesimal(sign, digits), nil
	case strings.HasPrefix(digits, "0b"):
		base, digits = 2, digits[2:]
	case strings.HasPrefix(digits, "0x"):
		base, digits = 16, digits[2:]
	case len(digits) > 1 && digits[0] == '0':
		base, digits = 8, digits[1:]
	}
	if base == 10 {
		return parseInt(strings.TrimPrefix(sign, "+") + digits)
	}
	b, ok := new(big.Int).SetString(sign+digits, base)
	if !ok {
		return nil, strconv.ErrSyntax
	}
	return value.Of(b)
}

func cutSign(s string) (sign, rest string) {
	if s[0] == '-' || s[0] == '+' {
		return s[:1], s[1:]
	}
	return "", s
}

// sexagesimal reads 1:30 as ninety, as long as it fits.
func sexagesimal(sign, digits string) any {
	sum := new(big.Int)
	for part := range strings.SplitSeq(digits, ":") {
		n, _ := new(big.Int).SetString(part, 10)
		sum.Add(sum.Mul(sum, big.NewInt(60)), n)
	}
	if sign == "-" {
		sum.Neg(sum)
	}
	v, _ := value.Of(sum)
	return v
}

func yamlFloating(s string) (any, error) {
	sign, digits := cutSign(s)
	sum := 0.0
	for part := range strings.SplitSeq(digits, ":") {
		f, err := strconv.ParseFloat(part, 64)
		if err != nil && !math.IsInf(f, 0) {
			return nil, err
		}
		sum = sum*60 + f
	}
	if sign == "-" {
		sum = -sum
	}
	return sum, nil
}

// yamlTimestamp brings YAML's looser form, with single digits and space before the zone, into the ISO one.
func yamlTimestamp(s string, parts []string) (any, error) {
	number := func(i int) string {
		if len(parts[i]) == 1 {
			return "0" + parts[i]
		}
		return parts[i]
	}
	date := parts[1] + "-" + number(2) + "-" + number(3)
	if parts[4] == "" {
		if len(s) != len(date) { // only the long form may leave digits out
			return s, nil
		}
		return value.ParseDate(date)
	}
	fraction := parts[7]
	text := date + "T" + number(4) + ":" + parts[5] + ":" + parts[6] + "." + fraction[:min(len(fraction), 6)]
	switch {
	case parts[8] == "Z":
		text += "Z"
	case parts[9] != "":
		text += parts[9] + number(10) + ":"
		if parts[11] == "" {
			text += "00"
		} else {
			text += parts[11]
		}
	}
	t, aware, err := value.ParseISO(text)
	if err != nil {
		return nil, err
	}
	if !aware {
		return value.LocalTime{Time: t}, nil
	}
	return t, nil
}
