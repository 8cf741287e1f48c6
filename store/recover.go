package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/db"
	"rqlited/internal/extension"
	"rqlited/snapshot"
)

// maxPeersFile bounds peers.json.
const maxPeersFile = 1 << 20

// peer is an element of peers.json.
type peer struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	NonVoter bool   `json:"non_voter"`
}

// readPeers reads the membership that a human has laid down in name. It reports all faults at
// once, since each costs a restart, and fs.ErrNotExist if there is no file.
func readPeers(name string) (raft.Configuration, error) {
	f, err := os.Open(name)
	if err != nil {
		return raft.Configuration{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPeersFile+1))
	if err != nil {
		return raft.Configuration{}, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxPeersFile {
		return raft.Configuration{}, fmt.Errorf("read %s: longer than %d bytes", name, maxPeersFile)
	}
	c, err := parsePeers(data)
	if err != nil {
		return raft.Configuration{}, fmt.Errorf("%s is not valid: %w", name, err)
	}
	return c, nil
}

func parsePeers(data []byte) (raft.Configuration, error) {
	var peers []peer
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&peers); err != nil {
		return raft.Configuration{}, fmt.Errorf("want a JSON list of {\"id\",\"address\",\"non_voter\"}: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return raft.Configuration{}, errors.New("something follows the list")
	}
	var c raft.Configuration
	var faults []error
	ids, addrs := make(map[string]bool), make(map[string]bool)
	for i, p := range peers {
		faults = append(faults, p.check(i, ids[p.ID], addrs[p.Address])...)
		ids[p.ID], addrs[p.Address] = true, true
		suffrage := raft.Voter
		if p.NonVoter {
			suffrage = raft.Nonvoter
		}
		c.Servers = append(c.Servers, raft.Server{
			Suffrage: suffrage, ID: raft.ServerID(p.ID), Address: raft.ServerAddress(p.Address),
		})
	}
	if !slices.ContainsFunc(peers, func(p peer) bool { return !p.NonVoter }) {
		faults = append(faults, errors.New("there is no voter"))
	}
	return c, errors.Join(faults...)
}

// check returns all that is wrong with the i-th element.
func (p peer) check(i int, idSeen, addrSeen bool) (faults []error) {
	add := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("element %d: "+format, append([]any{i + 1}, args...)...))
	}
	switch {
	case p.ID == "":
		add("id is empty")
	case idSeen:
		add("id %q is used twice", p.ID)
	}
	_, port, err := net.SplitHostPort(p.Address)
	switch {
	case p.Address == "":
		add("address is empty")
	case strings.Contains(p.Address, "://"):
		add("address %q is a URL; want host:port", p.Address)
	case err != nil || port == "":
		add("address %q has no port", p.Address)
	case addrSeen:
		add("address %q is used twice", p.Address)
	}
	return faults
}

// recovery gives a cluster that has lost its quorum the membership in peers.json. Each step can be
// cut by a crash and done again: up to the publication nothing has changed but that the live
// database must be restored, after it the log holds nothing that the new head does not, and a
// second recovery publishes the same state once more.
type recovery struct {
	cfg        Config
	extensions extension.Set
	snaps      *snapshot.Store
	logs       *logStore
	log        *slog.Logger
}

// run returns whether there was anything to do.
func (r *recovery) run(ctx context.Context) (bool, error) {
	name := filepath.Join(r.cfg.Dir, raftDir, peersFile)
	peers, err := readPeers(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if r.logs.silent() {
		return false, fmt.Errorf("%s: this node has lost its data, and waits for the leader to send it; recover the other nodes, and start this one without that file", name)
	}
	start := time.Now()
	r.log.Warn("membership is being replaced by peers.json", "members", len(peers.Servers))
	if !slices.ContainsFunc(peers.Servers, func(sv raft.Server) bool { return string(sv.ID) == r.cfg.NodeID }) {
		r.log.Warn("this node is not in peers.json and will not take part", "node", r.cfg.NodeID)
	}
	index, err := r.publish(ctx, peers)
	if err != nil {
		return false, fmt.Errorf("recover from %s: %w", name, err)
	}
	if err := r.finish(name); err != nil {
		return false, fmt.Errorf("recover from %s: %w", name, err)
	}
	r.log.Warn("membership replaced", "index", index, "took", time.Since(start))
	return true, nil
}

// publish makes the newest snapshot and all of the log, committed or not, the head, with peers as
// its members.
func (r *recovery) publish(ctx context.Context, peers raft.Configuration) (index uint64, err error) {
	// Whatever the live database was, it is not the head that this makes.
	d, err := db.Open(filepath.Join(r.cfg.Dir, dbFile), db.Config{
		ForeignKeys: r.cfg.ForeignKeys, MaxReaders: 1, FS: r.cfg.fs, Logger: r.log,
		Extensions: r.extensions.Paths(r.cfg.extensionsDir()),
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.WithdrawMarker(); err != nil {
		return 0, fmt.Errorf("withdraw marker: %w", err)
	}
	head, exists := r.snaps.Head()
	if exists {
		if err := r.restore(ctx, d, head.ID); err != nil {
			return 0, fmt.Errorf("restore snapshot %s: %w", head.ID, err)
		}
	}
	index, term, err := r.replay(ctx, d, head)
	if err != nil {
		return 0, err
	}
	return index, r.write(d, peers, index, term)
}

func (r *recovery) restore(ctx context.Context, d *db.DB, id string) (err error) {
	_, rc, err := r.snaps.Open(id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	image := filepath.Join(r.cfg.Dir, restoreFile)
	if err := writeImage(ctx, r.cfg.fs, rc, image); err != nil {
		return err
	}
	return d.Replace(image, "") // it becomes something else, so no marker may name it
}

// replay applies the log behind head and returns where it ends.
func (r *recovery) replay(ctx context.Context, d *db.DB, head snapshot.Head) (index, term uint64, err error) {
	index, term = head.Index, head.Term
	_, last, err := r.logs.bounds()
	if err != nil {
		return 0, 0, err
	}
	x := newExtensions(r.extensions)
	for i := head.Index + 1; i <= last; i++ {
		if ctx.Err() != nil {
			return 0, 0, context.Cause(ctx)
		}
		var l raft.Log
		if err := r.logs.GetLog(i, &l); err != nil {
			return 0, 0, fmt.Errorf("read log entry %d: %w", i, err)
		}
		if l.Type == raft.LogCommand {
			if err := replayEntry(d, &x, l.Data); err != nil {
				return 0, 0, fmt.Errorf("apply log entry %d: %w", i, err)
			}
		}
		index, term = l.Index, l.Term
	}
	return index, term, nil
}

// replayEntry applies an entry whose results nobody waits for.
func replayEntry(d *db.DB, x *extensions, data []byte) error {
	e, err := command.DecodeEntry(data)
	if err != nil {
		return err
	}
	switch e.Kind {
	case command.Query, command.Noop:
		return nil
	case command.Execute, command.Unified, command.Load, command.LoadChunk:
		x.note(e, true, nil)
		resp, err := d.Apply(e)
		if err != nil {
			return err
		}
		return x.check(resp)
	}
	return fmt.Errorf("kind %d is unknown: a newer version wrote it, and is needed to go on", e.Kind)
}

// write publishes the database as a complete image, which supersedes all there is.
func (r *recovery) write(d *db.DB, peers raft.Configuration, index, term uint64) error {
	c, err := d.Capture("")
	if err != nil {
		return fmt.Errorf("capture database: %w", err)
	}
	defer c.Release()
	// Raft takes the membership for one that was committed at the beginning of the log.
	k, err := r.snaps.Create(raft.SnapshotVersionMax, index, term, peers, 1, nil)
	if err != nil {
		return fmt.Errorf("create snapshot: %w", err)
	}
	if err := snapshot.WriteStream(k, pages{c, nil}); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), k.Cancel())
	}
	if err := k.Close(); err != nil {
		return fmt.Errorf("publish snapshot: %w", err)
	}
	return nil
}

// finish makes sure that the recovery is not done again.
func (r *recovery) finish(name string) error {
	// Old entries that change the membership must not be found again.
	if err := r.logs.clear(); err != nil {
		return err
	}
	if err := r.cfg.fs.Rename(name, filepath.Join(filepath.Dir(name), peersDone)); err != nil {
		return err
	}
	return r.cfg.fs.SyncDir(filepath.Dir(name)) // or the next start would drop what is written from now on
}
