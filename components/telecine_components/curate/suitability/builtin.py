"""The model that curate.filter asks where it is given no other."""

MODEL = """{
 "best": 4.528707,
 "format": "telecine suitability 1",
 "metrics": {
  "spearman": 0.9
 },
 "penalties": [
  {
   "knee": 0.01,
   "measure": "motion",
   "ruin": 0.0,
   "strength": 0.45808
  },
  {
   "knee": 0.154685,
   "measure": "motion",
   "ruin": 2.0,
   "strength": 0.545558
  },
  {
   "knee": 0.770677,
   "measure": "stability",
   "ruin": 0.0,
   "strength": 0.469261
  },
  {
   "knee": 0.2,
   "measure": "freeze",
   "ruin": 1.0,
   "strength": 0.63442
  },
  {
   "knee": 0.006549,
   "measure": "flicker",
   "ruin": 0.2,
   "strength": 0.545928
  },
  {
   "knee": 0.412367,
   "measure": "blur",
   "ruin": 0.8,
   "strength": 0.594075
  },
  {
   "knee": 0.001764,
   "measure": "noise",
   "ruin": 0.15,
   "strength": 0.622128
  },
  {
   "knee": 0.183594,
   "measure": "blockiness",
   "ruin": 0.8,
   "strength": 0.556204
  },
  {
   "knee": 0.349085,
   "measure": "exposure",
   "ruin": 0.0,
   "strength": 0.585902
  },
  {
   "knee": 0.588039,
   "measure": "exposure",
   "ruin": 1.0,
   "strength": 0.581636
  },
  {
   "knee": 0.324379,
   "measure": "contrast",
   "ruin": 0.0,
   "strength": 0.557177
  },
  {
   "knee": 0.0,
   "measure": "clipping",
   "ruin": 0.5,
   "strength": 0.531783
  },
  {
   "knee": 0.0,
   "measure": "black_bars",
   "ruin": 0.5,
   "strength": 0.54822
  },
  {
   "knee": 0.037943,
   "measure": "overlay_text",
   "ruin": 0.15,
   "strength": 0.525037
  },
  {
   "knee": 0.567659,
   "measure": "logo",
   "ruin": 1.0,
   "strength": 0.467843
  }
 ],
 "truth": "planted",
 "worst": 1.288261
}
"""
