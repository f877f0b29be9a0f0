package cli

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

// columnsOf are rows below a heading, each column as wide as its widest cell.
func columnsOf(heading []string, rows [][]string) []string {
	all := append([][]string{heading}, rows...)
	widths := make([]int, len(heading))
	for _, r := range all {
		for i := range r {
			r[i] = printable(r[i])
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i]))
		}
	}
	lines := make([]string, len(all))
	for n, r := range all {
		var b strings.Builder
		for i, cell := range r {
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		lines[n] = b.String()
	}
	return lines
}

// cut is a line of at most so many characters; 0: as it is.
func cut(line string, width int) string {
	if width <= 0 || utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:width])
}

// terminalSize is the size of the terminal, as it says itself, as LINES and COLUMNS have it, or as most are.
func terminalSize(w io.Writer) (rows, columns int) {
	if f, isFile := w.(*os.File); isFile {
		rows, columns = windowSize(f)
	}
	if rows <= 0 {
		rows = variable("LINES", 24)
	}
	if columns <= 0 {
		columns = variable("COLUMNS", 80)
	}
	return rows, columns
}

func variable(name string, usual int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return usual
}
