package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// maxConfigFile bounds the configuration file; all settings together need a tenth of it.
const maxConfigFile = 64 << 10 // bytes

// configLine is a line of a configuration file that says something.
type configLine struct {
	key, value string
	origin     string // file:line
	fault      string // why the line cannot be read; never repeats what may be a value
}

// readConfig reads a configuration file.
func readConfig(name string) ([]configLine, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxConfigFile {
		return nil, fmt.Errorf("%s has more than %d bytes", name, maxConfigFile)
	}
	return parseConfig(name, string(text)), nil
}

// parseConfig splits a configuration file into its lines: key = value, with comments from # on. A
// value that has a # behind a space, or spaces at its ends, stands in double quotes.
func parseConfig(name, text string) []configLine {
	var lines []configLine
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		l := configLine{origin: fmt.Sprintf("%s:%d", name, number)}
		key, value, ok := strings.Cut(line, "=")
		if l.key = strings.TrimSpace(key); !ok || !isKey(l.key) {
			l.fault = "want key = value"
		} else {
			l.value, l.fault = configValue(strings.TrimSpace(value))
		}
		lines = append(lines, l)
	}
	return lines
}

// isKey reports whether a word may be the name of a flag, so that it can be repeated in a message.
func isKey(word string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	return word != "" && len(word) <= 64 && strings.Trim(word, letters) == ""
}

// configValue reads what follows the equals sign.
func configValue(text string) (value, fault string) {
	if !strings.HasPrefix(text, `"`) {
		return withoutComment(text), ""
	}
	quoted, err := strconv.QuotedPrefix(text)
	if err != nil {
		return "", "the quoted value does not end, or has an unknown escape"
	}
	if withoutComment(" "+text[len(quoted):]) != "" {
		return "", "only a comment may follow the quoted value"
	}
	value, err = strconv.Unquote(quoted)
	if err != nil {
		return "", "the quoted value cannot be read"
	}
	return value, ""
}

// withoutComment cuts a comment off, which begins with a # that is the first letter or behind a space.
func withoutComment(text string) string {
	for i := range len(text) {
		if text[i] == '#' && (i == 0 || text[i-1] == ' ' || text[i-1] == '\t') {
			text = text[:i]
			break
		}
	}
	return strings.TrimSpace(text)
}
