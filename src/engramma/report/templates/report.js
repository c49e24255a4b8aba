(function () {
  "use strict";
  var narrowBelow = 560;

  // -- theme: colours in figures are names of CSS variables ------------------------------
  function colours() {
    var style = getComputedStyle(document.documentElement);
    return function resolve(value) {
      if (typeof value === "string") {
        var match = /^var\((--[a-z0-9-]+)\)$/.exec(value);
        return match ? style.getPropertyValue(match[1]).trim() : value;
      }
      if (Array.isArray(value)) return value.map(resolve);
      if (value && typeof value === "object") {
        var copy = {};
        Object.keys(value).forEach(function (key) { copy[key] = resolve(value[key]); });
        return copy;
      }
      return value;
    };
  }

  function merge(base, over) {
    Object.keys(over || {}).forEach(function (key) {
      var a = base[key], b = over[key];
      base[key] = a && b && typeof a === "object" && typeof b === "object" && !Array.isArray(b)
        ? merge(a, b) : b;
    });
    return base;
  }

  function axis(standoff) {
    return {
      automargin: true, gridcolor: "var(--grid)", zerolinecolor: "var(--faint)",
      linecolor: "var(--faint)", tickcolor: "var(--faint)", ticks: "outside", ticklen: 3,
      title: { standoff: standoff, font: { size: 12, color: "var(--muted)" } }, tickfont: { size: 11 }
    };
  }

  function themed(layout, narrow) {
    var base = {
      autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif", size: 12, color: "var(--ink)" },
      margin: { l: narrow ? 36 : 48, r: 12, t: 14, b: 36 },
      xaxis: axis(), yaxis: axis(8),
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: 12 }, bgcolor: "rgba(0,0,0,0)" },
      hoverlabel: { bgcolor: "var(--raised)", bordercolor: "var(--faint)", font: { color: "var(--ink)" }, align: "left" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: "var(--faint)", activecolor: "var(--ink)" },
      dragmode: narrow ? false : "zoom", hovermode: "closest"
    };
    var whole = merge(base, JSON.parse(JSON.stringify(layout)));
    (whole.sliders || []).forEach(function (slider) {
      merge(slider, {
        bgcolor: "var(--grid)", activebgcolor: "var(--c1)", bordercolor: "var(--faint)",
        tickcolor: "var(--faint)", font: { color: "var(--muted)", size: 11 }
      });
    });
    return whole;
  }

  // Named ticks: as many as there is room for, short on a phone.
  function thin(full, layout, narrow) {
    ["xaxis", "yaxis"].forEach(function (name) {
      var wanted = layout[name], drawn = full[name];
      if (!wanted || !wanted.ticktext || !drawn || !drawn._length) return;
      var step = Math.max(1, Math.ceil(wanted.ticktext.length * 13 / drawn._length));
      var keep = function (_, i) { return i % step === 0; };
      wanted.tickvals = wanted.tickvals.filter(keep);
      wanted.ticktext = wanted.ticktext.filter(keep).map(function (label) {
        return narrow && label.length > 14 && label.indexOf("&") < 0 ? label.slice(0, 6) + "…" + label.slice(-7) : label;
      });
    });
  }

  function draw(place) {
    var spec = place.spec, width = place.clientWidth;
    if (!width) return Promise.resolve();
    var narrow = width < narrowBelow, resolve = colours();
    var layout = themed(spec.layout, narrow), ratio = Number(place.dataset.ratio || 0);
    layout.width = width;
    if (ratio) layout.height = Math.round(width * ratio) + 40;
    place.drawnWidth = width;
    var config = {
      displaylogo: false, displayModeBar: narrow ? false : "hover", responsive: false,
      scrollZoom: false, doubleClick: "reset",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"]
    };
    return Plotly.react(place, resolve(spec.data), resolve(layout), config).then(function () {
      // What labels, legend and colour scale take is known only now: settle height and ticks.
      // A second look settles margins that shorter tick labels have given back.
      var chain = Promise.resolve();
      for (var round = 0; round < (ratio ? 3 : 1); round += 1) {
        chain = chain.then(function () {
          var full = place._fullLayout, fitted = themed(spec.layout, narrow);
          fitted.width = width;
          if (ratio) {
            fitted.height = Math.round(full.height - full._size.h + full._size.w * ratio);
          } else {
            var around = full.height - full._size.h, asked = spec.layout.height;
            fitted.height = Math.max(asked, Math.min(asked + 160, around + asked * 0.6));
          }
          thin(full, fitted, narrow);
          return Plotly.react(place, resolve(spec.data), resolve(fitted), config);
        });
      }
      return chain;
    }).then(function () {
      place.style.minHeight = "0";
      place.dataset.drawn = "yes";
    });
  }

  function fail(place, error) {
    var note = document.createElement("p");
    note.className = "failed";
    note.textContent = "This figure could not be drawn here (" + error.message + "); its caption and the numbers below still hold.";
    place.appendChild(note);
    console.error(error);
  }

  var plots = Array.prototype.slice.call(document.querySelectorAll(".plot"));
  plots.forEach(function (place) {
    var source = place.querySelector("script");
    place.spec = JSON.parse(source.textContent);
    source.remove();
  });

  function all(when) {
    return plots.reduce(function (before, place) {
      return before.then(function () {
        if (when && !when(place)) return null;
        return draw(place).catch(function (error) { fail(place, error); });
      });
    }, Promise.resolve());
  }

  var done = all().then(function () { document.documentElement.dataset.ready = "yes"; });

  var waiting = null;
  window.addEventListener("resize", function () {
    clearTimeout(waiting);
    waiting = setTimeout(function () {
      done = done.then(function () {
        return all(function (place) { return place.clientWidth !== place.drawnWidth; });
      });
    }, 150);
  });
  function again() { done = done.then(function () { return all(); }); }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  matchMedia("print").addEventListener("change", again);
  Array.prototype.forEach.call(document.querySelectorAll("details.leaf"), function (part) {
    part.addEventListener("toggle", function () {
      done = done.then(function () {
        return all(function (place) { return part.contains(place) && !place.dataset.drawn; });
      });
    });
  });

  // -- copy ------------------------------------------------------------------------------
  function copyBySelection(text) {
    var area = document.createElement("textarea");
    area.value = text;
    area.className = "hidden";
    document.body.appendChild(area);
    area.select();
    var copied = document.execCommand("copy");
    area.remove();
    return copied;
  }

  function say(button, words) {
    var before = button.dataset.label || button.textContent;
    button.dataset.label = before;
    button.textContent = words;
    document.getElementById("spoken").textContent = words;
    setTimeout(function () { button.textContent = before; }, 1800);
  }

  Array.prototype.forEach.call(document.querySelectorAll(".copy"), function (button) {
    button.addEventListener("click", function () {
      var text = document.getElementById(button.dataset.copy).textContent;
      var byHand = function () { say(button, copyBySelection(text) ? "Copied" : "Select and copy by hand"); };
      if (!navigator.clipboard) { byHand(); return; }
      navigator.clipboard.writeText(text).then(function () { say(button, "Copied"); }, byHand);
    });
  });

  // -- contents --------------------------------------------------------------------------
  var contents = document.querySelector("nav details");
  var wide = matchMedia("(min-width: 1000px)");
  function unfold() { contents.open = wide.matches; }
  wide.addEventListener("change", unfold);
  unfold();
  if ("IntersectionObserver" in window) {
    var watcher = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (!entry.isIntersecting) return;
        Array.prototype.forEach.call(contents.querySelectorAll("a"), function (link) {
          if (link.hash === "#" + entry.target.id) link.setAttribute("aria-current", "true");
          else link.removeAttribute("aria-current");
        });
      });
    }, { rootMargin: "-10% 0px -80% 0px" });
    Array.prototype.forEach.call(document.querySelectorAll("main > section"), function (section) { watcher.observe(section); });
  }
})();
