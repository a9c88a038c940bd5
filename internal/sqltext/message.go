package sqltext

import "strings"

// Unquoted returns an error message without what stands in quotes in it, where SQLite
// repeats what was written: near "secret": syntax error. A quote that is not closed
// takes the rest along.
func Unquoted(message string) string {
	var b strings.Builder
	for {
		i := strings.IndexAny(message, "'\"`")
		if i < 0 {
			b.WriteString(message)
			return b.String()
		}
		b.WriteString(message[:i+1])
		b.WriteString(ellipsis)
		n := strings.IndexByte(message[i+1:], message[i])
		if n < 0 {
			return b.String()
		}
		b.WriteByte(message[i])
		message = message[i+1+n+1:]
	}
}
