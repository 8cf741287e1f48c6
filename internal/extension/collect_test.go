package extension

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// entry is one of an archive or a directory.
type entry struct {
	name, content string
	mode          os.FileMode // zero is a regular file
	link          string
}

func makeZip(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(e.mode | 0o644)
		w, err := z.CreateHeader(h)
		if err == nil {
			_, err = io.WriteString(w, e.content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func makeTar(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.content)), Linkname: e.link}
		switch {
		case e.mode.IsDir():
			h.Typeflag = tar.TypeDir
		case e.mode&os.ModeSymlink != 0:
			h.Typeflag = tar.TypeSymlink
		case e.mode&os.ModeDevice != 0:
			h.Typeflag = tar.TypeBlock
		case e.link != "":
			h.Typeflag = tar.TypeLink
		}
		err := w.WriteHeader(h)
		if err == nil {
			_, err = io.WriteString(w, e.content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// listing returns what is in a directory, with the content of files.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s=%s ", e.Name(), data)
	}
	return strings.TrimSpace(b.String())
}

func TestCollect(t *testing.T) {
	src := t.TempDir()
	folder := filepath.Join(src, "folder")
	write(t, filepath.Join(folder, "b.so"), "B")
	write(t, filepath.Join(folder, "a.so"), "A")
	write(t, filepath.Join(folder, ".hidden"), "H")
	write(t, filepath.Join(folder, "below", "c.so"), "C")
	if err := os.Symlink(filepath.Join(folder, "below", "c.so"), filepath.Join(folder, "link.so")); err != nil {
		t.Fatal(err)
	}
	single := write(t, filepath.Join(src, "one.so"), "ONE")
	zipped := write(t, filepath.Join(src, "archive"), string(makeZip(t, entry{name: "z.so", content: "Z"}, entry{name: ".z", content: "H"}, entry{name: "a.so", content: "A of zip"})))
	tarred := write(t, filepath.Join(src, "archive.zip"), string(makeTar(t, entry{name: "./", mode: os.ModeDir}, entry{name: "./t.so", content: "T"}, entry{name: "._t.so", content: "H"})))
	empty := write(t, filepath.Join(src, "empty"), string(makeZip(t)))
	tests := []struct {
		name    string
		sources []string
		want    string
	}{
		{"nothing", nil, ""},
		{"a file", []string{single}, "one.so=ONE"},
		{"a directory", []string{folder}, "a.so=A b.so=B link.so=C"},
		{"a zip under another name", []string{zipped}, "a.so=A of zip z.so=Z"},
		{"a tar.gz under the name of a zip", []string{tarred}, "t.so=T"},
		{"an empty zip", []string{empty}, ""},
		{"several, the later one wins", []string{zipped, folder, single}, "a.so=A b.so=B link.so=C one.so=ONE z.so=Z"},
		{"in another order", []string{folder, zipped}, "a.so=A of zip b.so=B link.so=C z.so=Z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "extensions")
			write(t, filepath.Join(dir, "old.so"), "OLD")
			write(t, filepath.Join(dir+".tmp", "litter.so"), "LITTER")
			set, err := Collect(tt.sources, dir)
			if err != nil {
				t.Fatal(err)
			}
			got := listing(t, dir)
			if got != tt.want {
				t.Errorf("directory = %q; want %q", got, tt.want)
			}
			if n := strings.Count(got, "="); n != len(set) || n != len(set.Names()) || n != len(set.Paths(dir)) {
				t.Errorf("set = %v; want %d files", set.Names(), n)
			}
			if _, err := os.Stat(dir + ".tmp"); !os.IsNotExist(err) {
				t.Errorf("what was beside the directory: %v; want nothing", err)
			}
			back, err := Parse(set.String())
			if err != nil || set.Difference(back).String() != "" || len(back) != len(set) {
				t.Errorf("Parse(%q) = %v, %v", set, back, err)
			}
		})
	}
}

// TestCollectOwn takes extensions from the directory that is replaced.
func TestCollectOwn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "extensions")
	own := write(t, filepath.Join(dir, "a.so"), "A")
	for range 2 {
		if _, err := Collect([]string{own, dir}, dir); err != nil {
			t.Fatal(err)
		}
		if got := listing(t, dir); got != "a.so=A" {
			t.Errorf("directory = %q", got)
		}
	}
}

func TestCollectRefused(t *testing.T) {
	const zipFolders = "failed to load extensions from zip file: zip file contains subdirectories"
	const tarFolders = "failed to load extensions from tar.gz file: tar.gz file contains subdirectories"
	src := t.TempDir()
	pipe := filepath.Join(src, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	bomb := entry{name: "bomb.so", content: strings.Repeat("\x00", 2<<20)}
	many := make([]entry, maxFiles+1)
	for i := range many {
		many[i].name = fmt.Sprint(i, ".so")
	}
	good := entry{name: "a.so", content: "A"}
	file := func(data []byte) string { return string(data) }
	tests := []struct {
		name, content, want string
	}{
		{"zip with a folder", file(makeZip(t, good, entry{name: "sub/", mode: os.ModeDir})), zipFolders},
		{"zip with a file in a folder", file(makeZip(t, entry{name: "sub/a.so"})), zipFolders},
		{"zip to the parent", file(makeZip(t, entry{name: "../a.so"})), zipFolders},
		{"zip of the parent", file(makeZip(t, entry{name: ".."})), zipFolders},
		{"zip to the root", file(makeZip(t, entry{name: "/tmp/a.so"})), zipFolders},
		{"zip for Windows", file(makeZip(t, entry{name: `..\a.so`})), zipFolders},
		{"zip with a link", file(makeZip(t, entry{name: "a.so", content: "/etc/passwd", mode: os.ModeSymlink})), `zip file contains "a.so", which is not a regular file`},
		{"zip without a name", file(makeZip(t, entry{})), "is not a name of an extension"},
		{"zip with a name of two lines", file(makeZip(t, entry{name: "a\nb"})), "is not a name of an extension"},
		{"zip that unpacks to much", file(makeZip(t, bomb)), "more than 1048576 bytes"},
		{"zip of many files", file(makeZip(t, many...)), "more than 128 files"},
		{"half a zip", file(makeZip(t, good)[:40]), "zip file cannot be read"},
		{"large zip", magicZip + strings.Repeat("x", 1<<18), "zip file has more than"},
		{"tar with a folder", file(makeTar(t, good, entry{name: "sub", mode: os.ModeDir})), tarFolders},
		{"tar with a file in a folder", file(makeTar(t, entry{name: "./sub/a.so"})), tarFolders},
		{"tar to the parent", file(makeTar(t, entry{name: "../a.so"})), tarFolders},
		{"tar to the root", file(makeTar(t, entry{name: "/tmp/a.so"})), tarFolders},
		{"tar with a symbolic link", file(makeTar(t, entry{name: "a.so", link: "/etc/passwd", mode: os.ModeSymlink})), "not a regular file"},
		{"tar with a hard link", file(makeTar(t, entry{name: "a.so", link: "b.so"})), "not a regular file"},
		{"tar with a device", file(makeTar(t, entry{name: "a.so", mode: os.ModeDevice})), "not a regular file"},
		{"tar that unpacks to much", file(makeTar(t, bomb)), "more than 1048576 bytes"},
		{"tar that hides much", file(makeTar(t, entry{name: ".bomb", content: bomb.content})), "more than 1048576 bytes"},
		{"tar of many files", file(makeTar(t, many...)), "more than 128 files"},
		{"half a tar", file(makeTar(t, good)[:30]), "tar.gz file cannot be read"},
		{"gzip of something else", magicGzip + "garbage", "tar.gz file cannot be read"},
		{"large file", bomb.content, "more than 1048576 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := t.TempDir()
			dir := filepath.Join(base, "data", "extensions")
			write(t, filepath.Join(dir, "old.so"), "OLD")
			source := write(t, filepath.Join(base, "source"), tt.content)
			_, err := collect([]string{source}, dir, limits{all: 1 << 20, archive: 1 << 18})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("collect: %v; want %q", err, tt.want)
			}
			if got := listing(t, dir); got != "old.so=OLD" {
				t.Errorf("directory = %q", got)
			}
			if got, err := os.ReadDir(base); err != nil || len(got) != 2 {
				t.Errorf("beside the data directory: %v, %v", got, err)
			}
		})
	}
	for name, want := range map[string]string{
		pipe:                           "is not a regular file",
		src:                            "is not a regular file",
		filepath.Join(src, "not here"): "no such file",
	} {
		if _, err := Collect([]string{name}, filepath.Join(t.TempDir(), "extensions")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Collect(%s): %v; want %q", name, err, want)
		}
	}
}

func TestCollectNowhere(t *testing.T) {
	const want = "failed to create extension store: "
	file := write(t, filepath.Join(t.TempDir(), "file"), "")
	if _, err := Collect(nil, filepath.Join(file, "extensions")); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("below a file: %v", err)
	}
}
