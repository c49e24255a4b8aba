"""BibTeX of what a study rests on."""

# ruff: noqa: E501  (a title or an author list is not broken over lines)

from __future__ import annotations

from collections.abc import Iterable


def _entry(kind: str, key: str, **fields: str) -> str:
    """Write one BibTeX entry; a DOI stands in for an address."""
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items()]
    return f"@{kind}{{{key},\n" + ",\n".join(lines) + "\n}"


#: author, title, then journal, year, volume, pages, doi of every article.
_ARTICLES: dict[str, tuple[str, str, str, str, str, str, str]] = {
    "numpy": (
        "Harris, Charles R. and Millman, K. Jarrod and {van der Walt}, St{\\'e}fan J. and others",
        "Array programming with {NumPy}",
        "Nature",
        "2020",
        "585",
        "357--362",
        "10.1038/s41586-020-2649-2",
    ),
    "scipy": (
        "Virtanen, Pauli and Gommers, Ralf and Oliphant, Travis E. and others",
        "{SciPy} 1.0: fundamental algorithms for scientific computing in {Python}",
        "Nature Methods",
        "2020",
        "17",
        "261--272",
        "10.1038/s41592-019-0686-2",
    ),
    "xarray": (
        "Hoyer, Stephan and Hamman, Joe",
        "xarray: {N-D} labeled arrays and datasets in {Python}",
        "Journal of Open Research Software",
        "2017",
        "5",
        "10",
        "10.5334/jors.148",
    ),
    "scikit-learn": (
        'Pedregosa, Fabian and Varoquaux, Ga{\\"e}l and Gramfort, Alexandre and others',
        "Scikit-learn: machine learning in {Python}",
        "Journal of Machine Learning Research",
        "2011",
        "12",
        "2825--2830",
        "",
    ),
    "nilearn": (
        "Abraham, Alexandre and Pedregosa, Fabian and Eickenberg, Michael and others",
        "Machine learning for neuroimaging with scikit-learn",
        "Frontiers in Neuroinformatics",
        "2014",
        "8",
        "14",
        "10.3389/fninf.2014.00014",
    ),
    "mne": (
        "Gramfort, Alexandre and Luessi, Martin and Larson, Eric and others",
        "{MEG} and {EEG} data analysis with {MNE-Python}",
        "Frontiers in Neuroscience",
        "2013",
        "7",
        "267",
        "10.3389/fnins.2013.00267",
    ),
    "bids": (
        "Gorgolewski, Krzysztof J. and Auer, Tibor and Calhoun, Vince D. and others",
        "The brain imaging data structure, a format for organizing and describing outputs of neuroimaging experiments",
        "Scientific Data",
        "2016",
        "3",
        "160044",
        "10.1038/sdata.2016.44",
    ),
    "nwb": (
        'R{\\"u}bel, Oliver and Tritt, Andrew and Ly, Ryan and others',
        "The {Neurodata Without Borders} ecosystem for neurophysiological data science",
        "eLife",
        "2022",
        "11",
        "e78362",
        "10.7554/eLife.78362",
    ),
    "eeglab": (
        "Delorme, Arnaud and Makeig, Scott",
        "{EEGLAB}: an open source toolbox for analysis of single-trial {EEG} dynamics including independent component analysis",
        "Journal of Neuroscience Methods",
        "2004",
        "134",
        "9--21",
        "10.1016/j.jneumeth.2003.10.009",
    ),
    "hoerl1970": (
        "Hoerl, Arthur E. and Kennard, Robert W.",
        "Ridge regression: biased estimation for nonorthogonal problems",
        "Technometrics",
        "1970",
        "12",
        "55--67",
        "10.1080/00401706.1970.10488634",
    ),
    "dupre2022": (
        "Dupr{\\'e} la Tour, Tom and Eickenberg, Michael and Nunez-Elizalde, Anwar O. and Gallant, Jack L.",
        "Feature-space selection with banded ridge regression",
        "NeuroImage",
        "2022",
        "264",
        "119728",
        "10.1016/j.neuroimage.2022.119728",
    ),
    "huth2016": (
        "Huth, Alexander G. and {de Heer}, Wendy A. and Griffiths, Thomas L. and Theunissen, Fr{\\'e}d{\\'e}ric E. and Gallant, Jack L.",
        "Natural speech reveals the semantic maps that tile human cerebral cortex",
        "Nature",
        "2016",
        "532",
        "453--458",
        "10.1038/nature17637",
    ),
    "naselaris2011": (
        "Naselaris, Thomas and Kay, Kendrick N. and Nishimoto, Shinji and Gallant, Jack L.",
        "Encoding and decoding in {fMRI}",
        "NeuroImage",
        "2011",
        "56",
        "400--410",
        "10.1016/j.neuroimage.2010.07.073",
    ),
    "kay2008": (
        "Kay, Kendrick N. and Naselaris, Thomas and Prenger, Ryan J. and Gallant, Jack L.",
        "Identifying natural images from human brain activity",
        "Nature",
        "2008",
        "452",
        "352--355",
        "10.1038/nature06713",
    ),
    "allen2022": (
        "Allen, Emily J. and St-Yves, Ghislain and Wu, Yihan and others",
        "A massive {7T} {fMRI} dataset to bridge cognitive neuroscience and artificial intelligence",
        "Nature Neuroscience",
        "2022",
        "25",
        "116--126",
        "10.1038/s41593-021-00962-x",
    ),
    "lage-castellanos2019": (
        "Lage-Castellanos, Agustin and Valente, Giancarlo and Formisano, Elia and {De Martino}, Federico",
        "Methods for computing the maximum performance of computational models of {fMRI} responses",
        "PLOS Computational Biology",
        "2019",
        "15",
        "e1006397",
        "10.1371/journal.pcbi.1006397",
    ),
    "spearman1910": (
        "Spearman, Charles",
        "Correlation calculated from faulty data",
        "British Journal of Psychology",
        "1910",
        "3",
        "271--295",
        "10.1111/j.2044-8295.1910.tb00206.x",
    ),
    "brown1910": (
        "Brown, William",
        "Some experimental results in the correlation of mental abilities",
        "British Journal of Psychology",
        "1910",
        "3",
        "296--322",
        "10.1111/j.2044-8295.1910.tb00207.x",
    ),
    "kriegeskorte2008rsa": (
        "Kriegeskorte, Nikolaus and Mur, Marieke and Bandettini, Peter",
        "Representational similarity analysis -- connecting the branches of systems neuroscience",
        "Frontiers in Systems Neuroscience",
        "2008",
        "2",
        "4",
        "10.3389/neuro.06.004.2008",
    ),
    "kriegeskorte2008matching": (
        "Kriegeskorte, Nikolaus and Mur, Marieke and Ruff, Douglas A. and others",
        "Matching categorical object representations in inferior temporal cortex of man and monkey",
        "Neuron",
        "2008",
        "60",
        "1126--1141",
        "10.1016/j.neuron.2008.10.043",
    ),
    "nili2014": (
        "Nili, Hamed and Wingfield, Cai and Walther, Alexander and Su, Li and Marslen-Wilson, William and Kriegeskorte, Nikolaus",
        "A toolbox for representational similarity analysis",
        "PLOS Computational Biology",
        "2014",
        "10",
        "e1003553",
        "10.1371/journal.pcbi.1003553",
    ),
    "schutt2023": (
        'Sch{\\"u}tt, Heiko H. and Kipnis, Alexander D. and Diedrichsen, J{\\"o}rn and Kriegeskorte, Nikolaus',
        "Statistical inference on representational geometries",
        "eLife",
        "2023",
        "12",
        "e82566",
        "10.7554/eLife.82566",
    ),
    "walther2016": (
        'Walther, Alexander and Nili, Hamed and Ejaz, Naveed and Alink, Arjen and Kriegeskorte, Nikolaus and Diedrichsen, J{\\"o}rn',
        "Reliability of dissimilarity measures for multi-voxel pattern analysis",
        "NeuroImage",
        "2016",
        "137",
        "188--200",
        "10.1016/j.neuroimage.2015.12.012",
    ),
    "haxby2001": (
        "Haxby, James V. and Gobbini, M. Ida and Furey, Maura L. and Ishai, Alumit and Schouten, Jennifer L. and Pietrini, Pietro",
        "Distributed and overlapping representations of faces and objects in ventral temporal cortex",
        "Science",
        "2001",
        "293",
        "2425--2430",
        "10.1126/science.1063736",
    ),
    "mumford2012": (
        "Mumford, Jeanette A. and Turner, Benjamin O. and Ashby, F. Gregory and Poldrack, Russell A.",
        "Deconvolving {BOLD} activation in event-related designs for multivoxel pattern classification analyses",
        "NeuroImage",
        "2012",
        "59",
        "2636--2643",
        "10.1016/j.neuroimage.2011.08.076",
    ),
    "turner2012": (
        "Turner, Benjamin O. and Mumford, Jeanette A. and Poldrack, Russell A. and Ashby, F. Gregory",
        "Spatiotemporal activity estimation for multivoxel pattern analysis with rapid event-related designs",
        "NeuroImage",
        "2012",
        "62",
        "1429--1438",
        "10.1016/j.neuroimage.2012.05.057",
    ),
    "maris2007": (
        "Maris, Eric and Oostenveld, Robert",
        "Nonparametric statistical testing of {EEG}- and {MEG}-data",
        "Journal of Neuroscience Methods",
        "2007",
        "164",
        "177--190",
        "10.1016/j.jneumeth.2007.03.024",
    ),
    "king2014": (
        "King, Jean-R{\\'e}mi and Dehaene, Stanislas",
        "Characterizing the dynamics of mental representations: the temporal generalization method",
        "Trends in Cognitive Sciences",
        "2014",
        "18",
        "203--210",
        "10.1016/j.tics.2014.01.002",
    ),
    "ojala2010": (
        "Ojala, Markus and Garriga, Gemma C.",
        "Permutation tests for studying classifier performance",
        "Journal of Machine Learning Research",
        "2010",
        "11",
        "1833--1863",
        "",
    ),
    "phipson2010": (
        "Phipson, Belinda and Smyth, Gordon K.",
        "Permutation p-values should never be zero: calculating exact p-values when permutations are randomly drawn",
        "Statistical Applications in Genetics and Molecular Biology",
        "2010",
        "9",
        "39",
        "10.2202/1544-6115.1585",
    ),
    "benjamini1995": (
        "Benjamini, Yoav and Hochberg, Yosef",
        "Controlling the false discovery rate: a practical and powerful approach to multiple testing",
        "Journal of the Royal Statistical Society: Series B",
        "1995",
        "57",
        "289--300",
        "10.1111/j.2517-6161.1995.tb02031.x",
    ),
    "ledoit2004": (
        "Ledoit, Olivier and Wolf, Michael",
        "A well-conditioned estimator for large-dimensional covariance matrices",
        "Journal of Multivariate Analysis",
        "2004",
        "88",
        "365--411",
        "10.1016/S0047-259X(03)00096-4",
    ),
}

#: Works that are no journal article.
_OTHERS: dict[str, tuple[str, dict[str, str]]] = {
    "diedrichsen2020": (
        "misc",
        {
            "author": 'Diedrichsen, J{\\"o}rn and Berlot, Eva and Mur, Marieke and Sch{\\"u}tt, Heiko H. and Shahbazi, Mahdiyar and Kriegeskorte, Nikolaus',
            "title": "Comparing representational geometries using whitened unbiased-distance-matrix similarity",
            "year": "2020",
            "note": "arXiv:2007.02789",
            "doi": "10.48550/arXiv.2007.02789",
        },
    ),
    "efficientnet": (
        "inproceedings",
        {
            "author": "Tan, Mingxing and Le, Quoc V.",
            "title": "{EfficientNet}: rethinking model scaling for convolutional neural networks",
            "booktitle": "Proceedings of the 36th International Conference on Machine Learning",
            "year": "2019",
            "pages": "6105--6114",
            "doi": "10.48550/arXiv.1905.11946",
        },
    ),
    "sentence-bert": (
        "inproceedings",
        {
            "author": "Reimers, Nils and Gurevych, Iryna",
            "title": "Sentence-{BERT}: sentence embeddings using {Siamese} {BERT}-networks",
            "booktitle": "Proceedings of EMNLP-IJCNLP 2019",
            "year": "2019",
            "pages": "3982--3992",
            "doi": "10.18653/v1/D19-1410",
        },
    ),
    "minilm": (
        "inproceedings",
        {
            "author": "Wang, Wenhui and Wei, Furu and Dong, Li and Bao, Hangbo and Yang, Nan and Zhou, Ming",
            "title": "{MiniLM}: deep self-attention distillation for task-agnostic compression of pre-trained transformers",
            "booktitle": "Advances in Neural Information Processing Systems",
            "year": "2020",
            "volume": "33",
            "pages": "5776--5788",
            "doi": "10.48550/arXiv.2002.10957",
        },
    ),
    "smollm2": (
        "misc",
        {
            "author": "{Ben Allal}, Loubna and Lozhkov, Anton and Bakouch, Elie and others",
            "title": "{SmolLM2}: when {Smol} goes big -- data-centric training of a small language model",
            "year": "2025",
            "note": "arXiv:2502.02737",
            "doi": "10.48550/arXiv.2502.02737",
        },
    ),
    "cka": (
        "inproceedings",
        {
            "author": "Kornblith, Simon and Norouzi, Mohammad and Lee, Honglak and Hinton, Geoffrey",
            "title": "Similarity of neural network representations revisited",
            "booktitle": "Proceedings of the 36th International Conference on Machine Learning",
            "year": "2019",
            "pages": "3519--3529",
            "doi": "10.48550/arXiv.1905.00414",
        },
    ),
    "pytorch": (
        "inproceedings",
        {
            "author": "Paszke, Adam and Gross, Sam and Massa, Francisco and others",
            "title": "{PyTorch}: an imperative style, high-performance deep learning library",
            "booktitle": "Advances in Neural Information Processing Systems",
            "year": "2019",
            "volume": "32",
            "pages": "8024--8035",
            "doi": "10.48550/arXiv.1912.01703",
        },
    ),
    "nibabel": (
        "misc",
        {
            "author": "Brett, Matthew and Markiewicz, Christopher J. and Hanke, Michael and others",
            "title": "{NiBabel}",
            "publisher": "Zenodo",
            "doi": "10.5281/zenodo.591597",
        },
    ),
    "zarr": (
        "misc",
        {
            "author": "Miles, Alistair and Kirkham, John and Durant, Martin and others",
            "title": "zarr-developers/zarr-python",
            "publisher": "Zenodo",
            "doi": "10.5281/zenodo.3773449",
        },
    ),
    "plotly": (
        "misc",
        {
            "author": "{Plotly Technologies Inc.}",
            "title": "Collaborative data science",
            "address": "Montr{\\'e}al",
            "year": "2015",
            "url": "https://plot.ly",
        },
    ),
    "fmriprep": (
        "article",
        {
            "author": "Esteban, Oscar and others",
            "title": "{fMRIPrep}: a robust preprocessing pipeline for functional {MRI}",
            "journal": "Nature Methods",
            "volume": "16",
            "pages": "111--116",
            "year": "2019",
            "doi": "10.1038/s41592-018-0235-4",
        },
    ),
    "gratton1983": (
        "article",
        {
            "author": "Gratton, Gabriele and Coles, Michael G. H. and Donchin, Emanuel",
            "title": "A new method for off-line removal of ocular artifact",
            "journal": "Electroencephalography and Clinical Neurophysiology",
            "volume": "55",
            "number": "4",
            "pages": "468--484",
            "year": "1983",
            "doi": "10.1016/0013-4694(83)90135-9",
        },
    ),
    "jas2017": (
        "article",
        {
            "author": "Jas, Mainak and Engemann, Denis A. and Bekhti, Yousra and Raimondo, Federico "
            "and Gramfort, Alexandre",
            "title": "Autoreject: Automated artifact rejection for {MEG} and {EEG} data",
            "journal": "NeuroImage",
            "volume": "159",
            "pages": "417--429",
            "year": "2017",
            "doi": "10.1016/j.neuroimage.2017.06.030",
        },
    ),
    "hyvarinen1999": (
        "article",
        {
            "author": 'Hyv{\\"a}rinen, Aapo',
            "title": "Fast and robust fixed-point algorithms for independent component analysis",
            "journal": "IEEE Transactions on Neural Networks",
            "volume": "10",
            "number": "3",
            "pages": "626--634",
            "year": "1999",
            "doi": "10.1109/72.761722",
        },
    ),
    "engramma": (
        "software",
        {
            "author": "{The engramma developers}",
            "title": "engramma: an open laboratory for how brains and machines encode, remember and decode",
            "year": "2026",
        },
    ),
}


def _articles() -> dict[str, str]:
    names = ("author", "title", "journal", "year", "volume", "pages", "doi")
    written = {}
    for key, values in _ARTICLES.items():
        fields = {name: value for name, value in zip(names, values, strict=True) if value}
        written[key] = _entry("article", key, **fields)
    return written


#: One BibTeX entry a key, as `engramma.study.result.Section.citations` names them.
BIBTEX: dict[str, str] = {
    **_articles(),
    **{key: _entry(kind, key, **fields) for key, (kind, fields) in _OTHERS.items()},
}


def bibtex(keys: Iterable[str]) -> str:
    """Return the entries of ``keys``, each once, in the order given.

    Raises
    ------
    KeyError
        If a key is not in `BIBTEX`.
    """
    wanted = list(dict.fromkeys(keys))
    unknown = [key for key in wanted if key not in BIBTEX]
    if unknown:
        raise KeyError(
            f"no reference is called {unknown[0]!r}; add it to engramma.study.references"
        )
    return "\n\n".join(BIBTEX[key] for key in wanted)
