package system

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sqliteFile reads the tables of a SQLite database file, as much of the format as rowid tables
// without a WAL need. It is written from the published file format, so that what a node answers
// can be compared with a file that no code of the module, nor its SQLite, has touched.
type sqliteFile struct {
	data     []byte
	pageSize int
	usable   int
}

// fileRow is a row as it is stored: nil, int64, float64, string or []byte.
type fileRow struct {
	rowid  int64
	values []any
}

func openSQLiteFile(name string) (*sqliteFile, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if len(data) < 100 || string(data[:16]) != "SQLite format 3\x00" {
		return nil, fmt.Errorf("%s is no SQLite file", name)
	}
	size := int(binary.BigEndian.Uint16(data[16:]))
	if size == 1 {
		size = 1 << 16
	}
	if data[18] != 1 || binary.BigEndian.Uint32(data[56:]) != 1 {
		return nil, fmt.Errorf("%s: want rollback-journal mode and UTF-8", name)
	}
	return &sqliteFile{data: data, pageSize: size, usable: size - int(data[20])}, nil
}

// page returns a page and the place of its b-tree header in it.
func (f *sqliteFile) page(no int) (page []byte, header int) {
	if no == 1 {
		header = 100
	}
	return f.data[(no-1)*f.pageSize : no*f.pageSize], header
}

// rows calls yield with each row of the table whose b-tree has this root, in order of rowid.
func (f *sqliteFile) rows(root int, yield func(fileRow)) error {
	page, h := f.page(root)
	cells := int(binary.BigEndian.Uint16(page[h+3:]))
	pointers := h + 8
	if page[h] == 5 {
		pointers = h + 12
	}
	for i := range cells {
		cell := page[binary.BigEndian.Uint16(page[pointers+2*i:]):]
		switch page[h] {
		case 13:
			row, err := f.leaf(cell)
			if err != nil {
				return err
			}
			yield(row)
		case 5:
			if err := f.rows(int(binary.BigEndian.Uint32(cell)), yield); err != nil {
				return err
			}
		default:
			return fmt.Errorf("page %d has type %d; want a table", root, page[h])
		}
	}
	if page[h] == 5 {
		return f.rows(int(binary.BigEndian.Uint32(page[h+8:])), yield)
	}
	return nil
}

// leaf reads a cell of a leaf page, with its overflow pages.
func (f *sqliteFile) leaf(cell []byte) (fileRow, error) {
	size, n := varint(cell)
	rowid, m := varint(cell[n:])
	cell = cell[n+m:]
	local := int(size)
	if most := f.usable - 35; local > most {
		least := (f.usable-12)*32/255 - 23
		local = least + (int(size)-least)%(f.usable-4)
		if local > most {
			local = least
		}
	}
	payload := append([]byte(nil), cell[:local]...)
	if len(payload) < int(size) {
		for next := binary.BigEndian.Uint32(cell[local:]); next != 0; {
			page, _ := f.page(int(next))
			payload = append(payload, page[4:4+min(f.usable-4, int(size)-len(payload))]...)
			next = binary.BigEndian.Uint32(page)
		}
	}
	if len(payload) != int(size) {
		return fileRow{}, errors.New("overflow chain has the wrong length")
	}
	values, err := record(payload)
	return fileRow{int64(rowid), values}, err
}

// record decodes a record: a header of serial types, then the values.
func record(b []byte) ([]any, error) {
	size, n := varint(b)
	header, body := b[n:size], b[size:]
	var values []any
	for len(header) > 0 {
		kind, n := varint(header)
		header = header[n:]
		width, ok := map[uint64]int{0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8, 8: 0, 9: 0}[kind]
		if kind >= 12 {
			width, ok = int(kind-12)/2, true
		}
		if !ok || width > len(body) {
			return nil, fmt.Errorf("serial type %d with %d bytes left", kind, len(body))
		}
		values = append(values, value(kind, body[:width]))
		body = body[width:]
	}
	return values, nil
}

func value(kind uint64, b []byte) any {
	switch {
	case kind == 0:
		return nil
	case kind == 7:
		return math.Float64frombits(binary.BigEndian.Uint64(b))
	case kind == 8 || kind == 9:
		return int64(kind - 8)
	case kind >= 12 && kind%2 == 0:
		return append([]byte(nil), b...)
	case kind >= 13:
		return string(b)
	}
	n := int64(int8(b[0])) // the sign is in the first byte
	for _, c := range b[1:] {
		n = n<<8 | int64(c)
	}
	return n
}

// varint reads SQLite's variable-length integer: seven bits a byte, eight in the ninth.
func varint(b []byte) (v uint64, n int) {
	for n < 8 {
		v = v<<7 | uint64(b[n]&0x7f)
		n++
		if b[n-1] < 0x80 {
			return v, n
		}
	}
	return v<<8 | uint64(b[8]), 9
}

var keyColumns = regexp.MustCompile(`(?i)PRIMARY KEY\s*\(([^)]*)\)`)

// content reads the schema and all tables in the form of node.content. The rowid stands for a key
// of one INTEGER column, which must be the first: SQLite stores NULL there.
func (f *sqliteFile) content() (content, error) {
	all := content{}
	tables := map[string]fileRow{}
	err := f.rows(1, func(r fileRow) {
		all["schema"] = append(all["schema"], fmt.Sprintf("%v|%v|%v|%v", r.values[0], r.values[1], r.values[2], r.values[4]))
		if r.values[0] == "table" {
			tables[r.values[1].(string)] = r
		}
	})
	slices.Sort(all["schema"])
	for name, r := range tables {
		key := keyColumns.FindStringSubmatch(r.values[4].(string))
		alias := key != nil && !strings.Contains(key[1], ",")
		root := int(r.values[3].(int64))
		err = errors.Join(err, f.rows(root, func(r fileRow) {
			if alias && r.values[0] == nil {
				r.values[0] = r.rowid
			}
			var text strings.Builder
			text.WriteString(strconv.FormatInt(r.rowid, 10))
			for _, v := range r.values {
				text.WriteString("|" + quote(v))
			}
			all[name] = append(all[name], text.String())
		}))
	}
	return all, err
}

// quote writes a value as SQLite's quote() does.
func quote(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		s := strconv.FormatFloat(v, 'g', 15, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		return s
	case string:
		return quoteText(v)
	case []byte:
		return fmt.Sprintf("X'%X'", v)
	}
	panic(fmt.Sprintf("value of type %T", v))
}

// TestSQLiteValues checks the reader's arithmetic; that it reads whole files shows in TestChinook.
func TestSQLiteValues(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]uint64{"\x00": 0, "\x7f": 127, "\x81\x00": 128, "\xff\xff\xff\xff\xff\xff\xff\xff\xff": math.MaxUint64} {
		if got, n := varint([]byte(in)); got != want || n != len(in) {
			t.Errorf("varint(%x) = %d, %d; want %d, %d", in, got, n, want, len(in))
		}
	}
	for _, tt := range []struct {
		kind uint64
		in   string
		want any
	}{
		{1, "\xff", int64(-1)}, {2, "\x80\x00", int64(-32768)}, {3, "\x01\x00\x00", int64(65536)}, {9, "", int64(1)}, {15, "a", "a"},
	} {
		if got := value(tt.kind, []byte(tt.in)); got != tt.want {
			t.Errorf("value(%d, %x) = %v; want %v", tt.kind, tt.in, got, tt.want)
		}
	}
}
