package serialization

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Accept is the list of content types a program decodes: Celery's accept_content. The zero Accept is Celery's
// default, json alone. It may be copied and used concurrently.
type Accept struct{ contentTypes []string }

// NewAccept makes an accept list of serializer names or content types. Without any it accepts nothing but the types
// that are always accepted. An unknown name is an error that lists the known ones.
func NewAccept(names ...string) (Accept, error) {
	a := Accept{contentTypes: make([]string, 0, len(names))}
	for _, name := range names {
		s, ok := Lookup(name)
		if !ok {
			return Accept{}, fmt.Errorf("unknown serializer %q; known are %s", name, strings.Join(Names(), ", "))
		}
		a.contentTypes = append(a.contentTypes, s.ContentType())
	}
	return a, nil
}

// Types that carry no structure are safe to read, so kombu accepts them always.
const (
	typeData = "application/data"
	typeText = "application/text"
)

// Allows reports whether contentType is accepted. It is compared as it stands, parameters and case included, as kombu
// does; none at all is application/data.
func (a Accept) Allows(contentType string) bool {
	switch contentType {
	case "", typeData, typeText:
		return true
	case JSON.ContentType():
		if a.contentTypes == nil {
			return true
		}
	}
	return slices.Contains(a.contentTypes, contentType)
}

// Decode reads a body in kombu's order: the type is checked against the list; if the type has a serializer that
// decides and the encoding is ignored; without one the body is text in its encoding (utf-8 when that is empty), or
// bytes if the encoding is binary. An empty body is "" or no bytes whatever its type says, as in kombu.
//
// Errors are *ContentDisallowed and *DecodeError.
func (a Accept) Decode(contentType, contentEncoding string, body []byte) (any, error) {
	if !a.Allows(contentType) {
		return nil, &ContentDisallowed{ContentType: contentType}
	}
	if contentType == "" {
		contentType = typeData
	}
	if s, ok := Lookup(contentType); ok && s != Raw && len(body) > 0 {
		return s.Decode(body)
	}
	v, err := decodeText(contentEncoding, body)
	if err != nil {
		return nil, &DecodeError{ContentType: contentType, Err: err}
	}
	return v, nil
}

var errASCII = errors.New("not ASCII")

func decodeText(encoding string, body []byte) (any, error) {
	switch strings.ToLower(encoding) {
	case "binary", "ascii-8bit":
		return slices.Clone(body), nil // body may belong to a driver
	case "", "utf-8", "utf8":
		if !utf8.Valid(body) {
			return nil, errUTF8
		}
		return string(body), nil
	case "us-ascii", "ascii":
		for _, c := range body {
			if c >= utf8.RuneSelf {
				return nil, errASCII
			}
		}
		return string(body), nil
	case "latin-1", "latin1", "iso-8859-1":
		runes := make([]rune, len(body))
		for i, c := range body {
			runes[i] = rune(c)
		}
		return string(runes), nil
	}
	return nil, fmt.Errorf("unknown encoding %q", encoding)
}
