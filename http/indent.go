package http

// indenter puts into compact JSON, which may come in pieces, the white space of json.Indent with four blanks.
type indenter struct {
	out     []byte // that its user writes to
	depth   int
	text    bool // within a string
	escaped bool // behind a backslash there
	opened  bool // behind the beginning of a list or an object
}

// append appends the next piece to dst.
func (n *indenter) append(dst, src []byte) []byte {
	for _, c := range src {
		if n.text {
			n.text = c != '"' || n.escaped
			n.escaped = c == '\\' && !n.escaped
			dst = append(dst, c)
			continue
		}
		closes := c == ']' || c == '}'
		switch {
		case n.opened && !closes:
			n.depth++
			dst = n.line(dst)
		case closes && !n.opened:
			n.depth--
			dst = n.line(dst)
		}
		n.opened = c == '[' || c == '{'
		n.text = c == '"'
		dst = append(dst, c)
		switch c {
		case ',':
			dst = n.line(dst)
		case ':':
			dst = append(dst, ' ')
		}
	}
	return dst
}

// line begins a line.
func (n *indenter) line(dst []byte) []byte {
	dst = append(dst, '\n')
	for range n.depth {
		dst = append(dst, "    "...)
	}
	return dst
}
