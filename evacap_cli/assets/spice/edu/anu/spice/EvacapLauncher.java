/*
 * Runs SPICE 1.0 without its LMDB cache, script engine and named-entity models, on Java 8 and later.
 *
 * This file is licensed like SPICE, whose package-private parts it calls: GNU Affero General Public License,
 * version 3 or later, see COPYING-AGPL-3.txt. It runs in a process of its own.
 */
package edu.anu.spice;

import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.FileDescriptor;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.Reader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;

import edu.stanford.nlp.pipeline.Annotation;
import edu.stanford.nlp.pipeline.StanfordCoreNLP;
import org.json.simple.JSONArray;
import org.json.simple.JSONObject;
import org.json.simple.JSONValue;
import org.json.simple.parser.JSONParser;
import org.json.simple.parser.ParseException;

/**
 * java edu.anu.spice.EvacapLauncher REQUEST THREADS
 *
 * REQUEST is a file with a JSON object in UTF-8:
 * "known": captions with their tuples, "unknown": captions to parse, "clips": [{"test": caption, "refs": [captions]}].
 * Standard output has a JSON object a line: {"tuples": [...]} for each unknown caption in order, as soon as it is
 * parsed, then {"scores": {...}} for each clip in order. It ends when standard input does: whoever started it is gone.
 */
public final class EvacapLauncher extends SpiceParser {
    private static final int CAPTIONS_A_THREAD = 16; // parsed between two signs of life

    private final Map<String, ArrayList<ArrayList<String>>> tuples = new HashMap<>();
    private final PrintStream out;

    private EvacapLauncher(int threads, PrintStream out) {
        super(null, threads, true);
        this.out = out;
    }

    public static void main(String[] args) throws IOException {
        // whatever a library prints goes to standard error: standard output is the protocol's
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), false, "UTF-8");
        System.setOut(System.err);
        JSONObject request;
        try (Reader file = new InputStreamReader(new FileInputStream(args[0]), StandardCharsets.UTF_8)) {
            request = (JSONObject) new JSONParser().parse(file);
        } catch (ParseException error) {
            throw new IOException(error);
        }
        int threads = Integer.parseInt(args[1]);
        endWithStarter();
        EvacapLauncher launcher = new EvacapLauncher(threads, out);
        for (Object entry : ((JSONObject) request.get("known")).entrySet()) {
            Map.Entry<?, ?> known = (Map.Entry<?, ?>) entry;
            launcher.tuples.put((String) known.getKey(), asTuples((JSONArray) known.getValue()));
        }
        launcher.parse(strings((JSONArray) request.get("unknown")), threads);
        launcher.score((JSONArray) request.get("clips"));
        out.flush();
        System.exit(out.checkError() ? 1 : 0); // not waiting for threads that a library left running
    }

    private static void endWithStarter() {
        Thread watch = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                    continue;
                }
            } catch (IOException closed) {
                System.err.println(closed);
            }
            Runtime.getRuntime().halt(3);
        });
        watch.setDaemon(true);
        watch.start();
    }

    private void parse(List<String> captions, int threads) {
        if (captions.isEmpty()) {
            return; // without loading the parser's model
        }
        Properties properties = new Properties();
        properties.setProperty("annotators", "tokenize,ssplit,parse,lemma"); // SPICE reads nothing of `ner`
        properties.setProperty("depparse.extradependencies", "MAXIMAL");
        properties.setProperty("threads", Integer.toString(threads));
        StanfordCoreNLP pipeline = new StanfordCoreNLP(properties);
        int step = CAPTIONS_A_THREAD * threads;
        for (int begin = 0; begin < captions.size(); begin += step) {
            List<String> texts = captions.subList(begin, Math.min(begin + step, captions.size()));
            List<Annotation> batch = new ArrayList<>();
            for (String text : texts) {
                batch.add(new Annotation(text));
            }
            pipeline.annotate(batch);
            for (int i = 0; i < batch.size(); i++) {
                ArrayList<ArrayList<String>> found = this.parseAnnotation(batch.get(i)).tuples;
                this.tuples.put(texts.get(i), found);
                this.say("tuples", JSONValue.toJSONString(found));
            }
            this.out.flush();
        }
    }

    private void score(JSONArray clips) {
        Map<String, TupleFilter> filters = new HashMap<>();
        filters.put("Object", TupleFilter.objectFilter);
        filters.put("Attribute", TupleFilter.attributeFilter);
        filters.put("Relation", TupleFilter.relationFilter);
        filters.put("Cardinality", TupleFilter.cardinalityFilter);
        filters.put("Color", TupleFilter.colorFilter);
        filters.put("Size", TupleFilter.sizeFilter);
        for (Object item : clips) {
            JSONObject clip = (JSONObject) item;
            List<String> references = strings((JSONArray) clip.get("refs"));
            SceneGraph said = this.parseCaptions(references, Collections.singletonList(references.size())).get(0);
            SceneGraph tested = this.parseCaptions(Collections.singletonList((String) clip.get("test"))).get(0);
            SpiceStats stats = new SpiceStats(filters, false);
            stats.score("", tested, said, true);
            this.say("scores", JSONValue.toJSONString(stats.scores.get(0)));
            this.out.flush();
        }
    }

    private void say(String name, String json) {
        this.out.print("{\"" + name + "\": " + json + "}\n");
    }

    /** Where SPICE asks for the tuples of captions: all are there already. */
    @Override
    protected Map<String, ArrayList<ArrayList<String>>> loadTuples(List<String> captions) {
        return this.tuples;
    }

    private static ArrayList<ArrayList<String>> asTuples(JSONArray lists) {
        ArrayList<ArrayList<String>> result = new ArrayList<>();
        for (Object list : lists) {
            result.add(strings((JSONArray) list));
        }
        return result;
    }

    private static ArrayList<String> strings(JSONArray values) {
        ArrayList<String> result = new ArrayList<>();
        for (Object value : values) {
            result.add((String) value);
        }
        return result;
    }
}
