// Package spelling finds the word that somebody may have meant.
package spelling

// Nearest is the known word that is spelled most like this one, within three letters to insert, remove or replace, and
// fewer than half of it. "" if there is none.
func Nearest(word string, known []string) string {
	best, distance := "", min(4, (len(word)+1)/2+1)
	for _, k := range known {
		if d := Distance(word, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// Distance counts the bytes to insert, remove or replace that make one word the other.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			next := min(row[j]+1, row[j+1]+1, diagonal)
			if a[i] != b[j] {
				next = min(row[j]+1, row[j+1]+1, diagonal+1)
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
