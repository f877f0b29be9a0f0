package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// levelCritical is Celery's CRITICAL.
const levelCritical = slog.LevelError + 4

// logLevels are Celery's names. FATAL is its other name for CRITICAL.
var logLevels = map[string]slog.Level{"DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo, "WARNING": slog.LevelWarn,
	"WARN": slog.LevelWarn, "ERROR": slog.LevelError, "CRITICAL": levelCritical, "FATAL": levelCritical}

func levelName(l slog.Level) string {
	switch {
	case l >= levelCritical:
		return "CRITICAL"
	case l >= slog.LevelError:
		return "ERROR"
	case l >= slog.LevelWarn:
		return "WARNING"
	case l >= slog.LevelInfo:
		return "INFO"
	}
	return "DEBUG"
}

// celeryLevel gives the level of a JSON record Celery's name.
func celeryLevel(groups []string, a slog.Attr) slog.Attr {
	if a.Key == slog.LevelKey && len(groups) == 0 {
		if l, ok := a.Value.Any().(slog.Level); ok {
			a.Value = slog.StringValue(levelName(l))
		}
	}
	return a
}

// logFlags are the flags of a command that logs.
type logFlags struct {
	level, file, format string
}

// open makes the logger. The file, if there is one, must be closed; a missing one is made, an existing one appended to.
func (f *logFlags) open(stderr io.Writer) (*slog.Logger, func(), error) {
	level, ok := logLevels[strings.ToUpper(f.level)]
	if !ok {
		return nil, nil, usage(fmt.Sprintf("--loglevel %q is unknown", f.level), "", "use DEBUG, INFO, WARNING, ERROR or CRITICAL")
	}
	w, shut := stderr, func() {}
	if f.file != "" {
		if strings.Contains(f.file, "%") {
			return nil, nil, usage("--logfile "+f.file+": patterns with % are not expanded", "one process writes one file", "name the file itself")
		}
		file, err := os.OpenFile(f.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, usage("--logfile: "+err.Error(), "", "")
		}
		w, shut = file, func() { _ = file.Close() }
	}
	switch f.format {
	case "text":
		return slog.New(&logHandler{out: &syncWriter{w: w}, level: level}), shut, nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: celeryLevel})), shut, nil
	}
	shut()
	return nil, nil, usage(fmt.Sprintf("--log-format %q is unknown", f.format), "", "use text or json")
}

// quietLogger is for commands whose errors come back to them: what drivers tell on their way there is noise.
func quietLogger(stderr io.Writer) *slog.Logger {
	return slog.New(&logHandler{out: &syncWriter{w: stderr}, level: levelCritical})
}

// logHandler writes records as Celery's worker does, so that what reads its logs reads ours: what a line says of a task is
// in its message, and other attributes stand behind as key=value. A traceback follows on lines of its own.
//
//	[2026-01-02 03:04:05,678: INFO/MainProcess] Task dev.add[8c1e…] succeeded in 0.0148s: 3
//	[2026-01-02 03:04:05,679: INFO/MainProcess] dev.add[8c1e…]: a task's own line attempt=1
type logHandler struct {
	out    *syncWriter
	level  slog.Level
	task   string // of WithAttrs, "name[id]: "
	attrs  string // of WithAttrs, ready to write
	prefix string // of WithGroup, "a.b."
}

type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) write(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.w.Write(b)
	return err
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	b := make([]byte, 0, 256)
	b = append(b, '[')
	b = r.Time.Local().AppendFormat(b, "2006-01-02 15:04:05,000")
	b = append(b, ": "...)
	b = append(b, levelName(r.Level)...)
	b = append(b, "/MainProcess] "...)
	b = appendPrintable(b, h.task)
	b = appendPrintable(b, r.Message)
	b = append(b, h.attrs...)
	traceback := ""
	r.Attrs(func(a slog.Attr) bool {
		if a.Value.Kind() == slog.KindLogValuer {
			if l, ok := a.Value.Any().(*worker.TaskLog); ok {
				traceback = l.Traceback
				return true
			}
		}
		b = appendAttr(b, h.prefix, a)
		return true
	})
	b = append(b, '\n')
	for line := range strings.Lines(traceback) {
		b = append(appendPrintable(b, strings.TrimRight(line, "\r\n")), '\n')
	}
	return h.out.write(b)
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	b := []byte(h.attrs)
	for _, a := range attrs {
		if a.Value.Kind() == slog.KindLogValuer {
			if n, ok := a.Value.Any().(task.LogName); ok {
				next.task = n.Task + "[" + n.ID + "]: "
				continue
			}
		}
		b = appendAttr(b, h.prefix, a)
	}
	next.attrs = string(b)
	return &next
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.prefix += name + "."
	return &next
}

func appendAttr(b []byte, prefix string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range v.Group() {
			b = appendAttr(b, prefix, inner)
		}
		return b
	}
	if a.Key == "" {
		return b
	}
	b = append(b, ' ')
	b = append(b, prefix...)
	b = append(b, a.Key...)
	b = append(b, '=')
	text := v.String()
	if text == "" || strings.ContainsFunc(text, needsQuotes) {
		return strconv.AppendQuote(b, text)
	}
	return append(b, text...)
}

// needsQuotes keeps a record on its line and its values apart.
func needsQuotes(r rune) bool {
	return unicode.IsSpace(r) || r == '"' || r == '=' || !unicode.IsPrint(r)
}

// appendPrintable keeps a message on its line, whatever a task's name or a broker's answer holds.
func appendPrintable(b []byte, text string) []byte {
	if !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return append(b, text...)
	}
	for _, r := range text {
		if unicode.IsPrint(r) {
			b = utf8.AppendRune(b, r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b = append(b, quoted[1:len(quoted)-1]...)
	}
	return b
}
